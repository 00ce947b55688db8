"""Make or prepare a benchmark.

`mini` draws the procedural benchmark from a seed: videos with exact masks and the knowledge base
its questions need. `okvos` turns raw rows, frames and masks in the layout of OK-VOS (the mini
benchmark has it too) into prepared rows.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seg_research.data.parallel import Progress

EXAMPLES = """examples:
  seg-research data mini --out outputs/mini --seed 0
  seg-research data okvos --root outputs/mini --split train --max_size 64 --min_size 64 --patch_factor 16
  seg-research data okvos --root data/OK_VOS --split test --num_frames 6 --max_size 448 --min_size 448 --model_type Qwen3VL
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of both kinds."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="mini|okvos")
    form = argparse.ArgumentDefaultsHelpFormatter
    mini = kinds.add_parser(
        "mini",
        help="draw the mini benchmark",
        description="Draw the mini benchmark.",
        formatter_class=form,
    )
    mini.add_argument("--out", type=Path, required=True, help="folder to create")
    mini.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    for split, count in (("train", 96), ("val", 16), ("test", 48)):
        mini.add_argument(
            f"--{split}", type=int, default=count, help=f"number of {split} questions, four a video"
        )
    mini.add_argument(
        "--force",
        action="store_true",
        help="delete a mini benchmark made with other arguments, and its folder, first",
    )
    _add_workers(mini)

    okvos = kinds.add_parser(
        "okvos",
        help="prepare a split",
        description="Prepare one split for training or evaluation.",
        formatter_class=form,
    )
    okvos.add_argument(
        "--split", choices=("train", "val", "test"), required=True, help="part of the benchmark"
    )
    okvos.add_argument(
        "--root", type=Path, default=Path("data/OK_VOS"), help="folder of the benchmark"
    )
    okvos.add_argument("--num_frames", type=int, default=6, help="frames offered to the policy")
    okvos.add_argument(
        "--max_size",
        type=int,
        default=448,
        help="longer side of a shown frame, rounded up to whole patches",
    )
    okvos.add_argument(
        "--min_size", type=int, default=448, help="shorter side; equal sides squash to a square"
    )
    okvos.add_argument(
        "--model_type",
        choices=("Qwen3VL", "Qwen2.5VL"),
        default="Qwen3VL",
        help="coordinates and patch size",
    )
    okvos.add_argument(
        "--patch_factor",
        type=int,
        default=None,
        help="pixels a visual token covers, if not the model type's",
    )
    okvos.add_argument(
        "--seed", type=int, default=0, help="fixes the frames drawn for train samples"
    )
    okvos.add_argument("--skip-bad", action="store_true", help="leave faulty rows out (train only)")
    _add_workers(okvos)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes"
    )


def run(options: argparse.Namespace) -> int:
    """Make or prepare what was asked for."""
    return _run_mini(options) if options.kind == "mini" else _run_okvos(options)


def _run_mini(options: argparse.Namespace) -> int:
    from seg_common.errors import UsageError
    from seg_research.mini.writer import MiniSizes, write_mini

    sizes = MiniSizes(options.train, options.val, options.test)
    if min(sizes.train, sizes.val, sizes.test) < 0 or sizes.train + sizes.val + sizes.test == 0:
        raise UsageError(
            f"--train {sizes.train} --val {sizes.val} --test {sizes.test}: expected counts of at least 0, one of them above"
        )
    with _progress("videos", "video") as progress:
        manifest = write_mini(
            options.out, options.seed, sizes, options.workers, progress, force=options.force
        )
    told = (
        f"{sizes.train} train, {sizes.val} val and {sizes.test} test questions about {manifest.num_videos} videos, "
        f"{manifest.num_passages} passages, {manifest.num_pictures} pictures, {manifest.num_bytes / 1e6:.1f} MB"
    )
    print(
        f"{options.out}: {told}"
        if manifest.new
        else f"{options.out}: nothing to do, holds {told} of this seed already"
    )
    print(f"content sha256 {manifest.content_sha256}")
    return 0


def _run_okvos(options: argparse.Namespace) -> int:
    from seg_research.data.readers.okvos import ModelType, Preparation, prepare_okvos
    from seg_research.data.splits import Split

    preparation = Preparation(
        split=Split(options.split),
        num_frames=options.num_frames,
        max_size_px=options.max_size,
        min_size_px=options.min_size,
        model_type=ModelType(options.model_type),
        patch_factor=options.patch_factor,
        seed=options.seed,
        skip_bad=options.skip_bad,
    )
    with _progress(f"{options.split} rows", "row") as progress:
        prepared = prepare_okvos(options.root, preparation, options.workers, progress)
    print(
        f"{prepared.path}: {prepared.num_rows} rows"
        + (f", {len(prepared.skipped)} left out:" if prepared.skipped else "")
    )
    for complaint in prepared.skipped:
        print(f"  {complaint}")
    return 0


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Progress]:
    """Show a bar on stderr; nothing is shown until the first report."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, file=sys.stderr, dynamic_ncols=True, delay=0.2) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
