"""Turn predictions into masks of every frame of their videos.

Masks go to <folder of PREDICTIONS>/seg/<id>/<frame>.png, 0 background and 255 target, in the
video's size. Several objects of one answer are merged. A prediction without an answer gets empty
masks. All questions about a video go through the model together. Finished predictions are skipped
when the command is run again. The exit code is 1 if any prediction failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from seg_common.errors import UsageError

if TYPE_CHECKING:
    from post_segmentation.backend import Backend, BackendOption, BackendSpec
    from post_segmentation.pipeline import FanOut
    from post_segmentation.segment_video import MaskOutcome, SegmentSettings

AUTO = "auto"
_OPTION_PREFIX = "backend_"

EXAMPLES = """examples:
  seg-research segment outputs/eval/predictions.jsonl
  seg-research segment outputs/eval/predictions.jsonl --weights facebook/sam2.1-hiera-large --vis
  seg-research segment outputs/eval/predictions.jsonl --backend grabcut --workers 8
  seg-research segment outputs/eval/predictions.jsonl --backend sam2+xmem --xmem-weights XMem.pth
  seg-research segment outputs/eval/predictions.jsonl --ray auto
"""

MAX_LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="predictions.jsonl of this program or of the original",
    )
    _add_backend_options(parser)
    _add_output_options(parser)
    where = parser.add_argument_group("where the work is done")
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=(
            "processes (default: one a core; with a network, one a GPU, or one where there is none)"
        ),
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="spread over a Ray cluster: auto, HOST:PORT, or a new one here if empty",
    )


def _add_backend_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the registered back-ends say of themselves."""
    from post_segmentation.registry import list_backends

    specs = list_backends()
    masks = parser.add_argument_group("who makes the masks")
    masks.add_argument(
        "--backend",
        default=AUTO,
        metavar="NAME",
        help="; ".join(f"{spec.name}: {spec.summary}" for spec in specs)
        + "; package.module:SPEC for another one (default: the first of "
        + ", ".join(spec.name for spec in specs if spec.preference is not None)
        + " that this machine has all for)",
    )
    for name, option in _options_by_name(specs).items():
        masks.add_argument(
            option.flag,
            dest=f"{_OPTION_PREFIX}{name}",
            metavar=option.metavar,
            help=option.help,
        )
    masks.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of the back-end; may be repeated",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    written = parser.add_argument_group("what is written")
    written.add_argument(
        "--out", type=Path, help="folder of the masks (default: seg beside PREDICTIONS)"
    )
    written.add_argument(
        "--format",
        choices=("png", "rle"),
        default="png",
        help="PNG files, or COCO run lengths in <id>/masks.jsonl",
    )
    written.add_argument(
        "--vis",
        action="store_true",
        help="also write one MP4 a prediction with masks, boxes and points drawn",
    )
    written.add_argument(
        "--sample-idx",
        type=int,
        default=0,
        metavar="N",
        help="which rollout of each question (default: 0)",
    )
    written.add_argument(
        "--overwrite", action="store_true", help="make masks again that are already there"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 if a prediction failed."""
    from post_segmentation.mask_writer import MaskFormat
    from post_segmentation.pipeline import read_rollout, segment
    from post_segmentation.segment_video import SegmentSettings

    requests, refused = read_rollout(options.predictions, options.sample_idx)
    suffix = "" if options.sample_idx == 0 else f"_{options.sample_idx}"
    out: Path = options.out or options.predictions.parent / f"seg{suffix}"
    vis = out.with_name(f"{out.name}_vis" if options.out else f"vis{suffix}")
    backend = _choose(options)
    num_gpus = _count_gpus(backend)
    num_workers = options.workers or (num_gpus if backend.spec.on_gpu else os.cpu_count())
    settings = SegmentSettings(
        out.absolute(),
        backend,
        vis.absolute() if options.vis else None,
        MaskFormat(options.format),
        max(1, num_workers or 1),
        num_gpus,
        options.overwrite,
    )
    with tqdm(
        total=len(requests),
        unit="prediction",
        desc=f"segment with {backend.name}",
        file=sys.stderr,
        delay=0.5,
    ) as bar:

        def advance(outcome: MaskOutcome) -> None:
            bar.set_postfix_str(outcome.sample_id[-40:], refresh=False)
            bar.update()

        outcomes = [
            *refused,
            *segment(requests, settings, advance, _over_ray(options, settings)),
        ]
    failed = _report(outcomes, f"in {out}, by {backend.name}")
    if options.vis:
        print(f"videos in {vis}")
    _report_failures([(outcome.sample_id, outcome.reason) for outcome in failed])
    return 1 if failed else 0


def _options_by_name(specs: Sequence[BackendSpec]) -> dict[str, BackendOption]:
    """Collect the options of all back-ends; the help of a shared one says what it is for each."""
    meanings: dict[str, dict[str, list[str]]] = {}
    found: dict[str, BackendOption] = {}
    for spec in specs:
        for option in spec.options:
            found.setdefault(option.name, option)
            meanings.setdefault(option.name, {}).setdefault(option.help, []).append(spec.name)
    return {
        name: option._replace(
            help="; ".join(f"{what} ({', '.join(names)})" for what, names in meanings[name].items())
        )
        for name, option in found.items()
    }


def _choose(options: argparse.Namespace) -> Backend:
    from post_segmentation.registry import choose_backend, find_backend

    values = _given_options(options)
    if options.backend != AUTO:
        return find_backend(options.backend).configure(values)
    backend, lacking = choose_backend(values)
    for reason in lacking:
        print(f"note: {reason}, so the masks are {backend.name}'s", file=sys.stderr)
    return backend


def _given_options(options: argparse.Namespace) -> dict[str, str]:
    """Return the options of the back-end that stand on the command line."""
    values = {
        name.removeprefix(_OPTION_PREFIX): value
        for name, value in vars(options).items()
        if name.startswith(_OPTION_PREFIX) and value is not None
    }
    for text in options.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option {text}: expected NAME=VALUE")
        values[name] = value
    return values


def _count_gpus(backend: Backend) -> int:
    """Return the number of GPUs to share among processes; 0 where the back-end needs none or is
    bound to one device.
    """
    if not backend.spec.on_gpu or backend.device != "auto":
        return 0
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count()


def _over_ray(options: argparse.Namespace, settings: SegmentSettings) -> FanOut | None:
    if options.ray is None:
        return None
    from functools import partial

    from post_segmentation.segment_video import lost_group
    from seg_research.training.ray_map import ray_map

    backend = settings.backend
    return partial(
        ray_map,
        on_lost=lost_group,
        address=None if options.ray == "local" else options.ray,
        num_gpus=1 if backend.spec.on_gpu and backend.device != "cpu" else 0,
        num_tasks=options.workers,
    )


def _report(outcomes: Sequence[MaskOutcome], where: str) -> list[MaskOutcome]:
    """Say what became of all predictions; return those that failed."""
    from post_segmentation.segment_video import Status

    counts = Counter(outcome.status for outcome in outcomes)
    print(
        f"masks of {len(outcomes) - counts[Status.FAILED]} of {len(outcomes)} predictions {where}"
        f" (new: {counts[Status.MASKED] + counts[Status.EMPTY]}, already there:"
        f" {counts[Status.KEPT]})"
    )
    if counts[Status.EMPTY]:
        print(f"without a usable answer, given empty masks: {counts[Status.EMPTY]}")
    return [outcome for outcome in outcomes if outcome.status is Status.FAILED]


def _report_failures(failed: list[tuple[str, str]]) -> None:
    if not failed:
        return
    print(f"failed: {len(failed)} (fix the cause and run the same command again)", file=sys.stderr)
    for reason, count in Counter(reason for _, reason in failed).most_common(MAX_LISTED):
        first = next(sample_id for sample_id, why in failed if why == reason)
        print(
            f"  {first}{f' and {count - 1} more' if count > 1 else ''}: {reason}", file=sys.stderr
        )
