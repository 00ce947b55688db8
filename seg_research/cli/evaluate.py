"""Score masks: J (region), F (boundary) and J&F, overall and per ability, times 100, with 95 %
bootstrap intervals.

Frames are averaged within a question, questions within an ability and overall. A question or frame
without a mask, or with a mask that cannot be read, counts 0 and is counted beside the score. Judged
are the frames for which the benchmark has a ground-truth PNG. The exit code is 1 if a file could
not be judged. What the columns mean: docs/metrics.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seg_common.errors import UsageError

if TYPE_CHECKING:
    from seg_research.metrics import SampleScore, ScoreTable

EXAMPLES = """examples:
  seg-research evaluate outputs/eval/predictions.jsonl --truth data/OK_VOS/test_meta_mapping.json
  seg-research evaluate outputs/eval/seg --truth outputs/mini/test_meta_mapping.json --json outputs/eval/result.json
"""

NUM_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "masks",
        type=Path,
        metavar="MASKS",
        help="folder of masks, or the predictions.jsonl beside whose seg folder they lie",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        metavar="META_MAPPING",
        help="[[id, folder of ground-truth PNGs, ability], …] as JSON",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="result file; the table goes beside it as .md (default: result.json beside the masks)",
    )
    parser.add_argument(
        "--average",
        choices=("samples", "frames", "abilities"),
        default="samples",
        help="what weighs the same in the means of J and F (default: samples)",
    )
    parser.add_argument(
        "--inner-frames",
        action="store_true",
        help="leave out the first and last frame of each sample",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one a core)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from tqdm import tqdm

    from seg_common.files import write_atomic
    from seg_research.evaluation.evaluate import read_meta_mapping, score_masks
    from seg_research.metrics import Averaging

    if options.workers < 1:
        raise UsageError(f"--workers {options.workers}: expected 1 or more")
    masks_dir: Path = (
        options.masks.parent / "seg" if options.masks.suffix == ".jsonl" else options.masks
    )
    mapping = read_meta_mapping(options.truth)
    with tqdm(total=len(mapping), unit="sample", desc="evaluate", file=sys.stderr) as bar:

        def advance(sample: SampleScore) -> None:
            bar.update()
            for fault in sample.faults:
                bar.write(f"broken, counts 0: {fault}", file=sys.stderr)

        table = score_masks(
            mapping,
            masks_dir,
            options.workers,
            averaging=Averaging(options.average),
            inner_frames=options.inner_frames,
            on_sample=advance,
        )
    print(table.to_markdown(), end="")
    for line in _remarks(table):
        print(line)
    result: Path = options.json or masks_dir.with_name("result.json")
    write_atomic(result, json.dumps(table.to_json(), ensure_ascii=False, indent=1) + "\n")
    write_atomic(result.with_suffix(".md"), "\n".join([table.to_markdown(), *_remarks(table), ""]))
    print(f"written: {result}, {result.with_suffix('.md')}")
    return 1 if table.overall.num_broken else 0


def _remarks(table: ScoreTable) -> list[str]:
    overall, present = table.overall, table.present
    lines: list[str] = []
    if overall.num_missing:
        counts = f"{overall.num_missing} of {overall.num_samples} samples lack masks ({overall.num_missing_frames} frames)"
        lines.append(f"missing: {counts}, {overall.num_absent} of them all masks; each counts 0")
    if overall.num_absent:
        names = [sample.sample_id for sample in table.samples if sample.is_absent]
        lines.append(
            f"without any mask: {', '.join(names[:NUM_NAMED])}{', …' if len(names) > NUM_NAMED else ''}"
        )
    if overall.num_absent and present:
        j, f, jf, *_ = present.scores.values()
        means = f"J {j.mean:.2f}, F {f.mean:.2f}, J&F {jf.mean:.2f}"
        lines.append(
            f"over the {present.num_samples} samples that have masks, as OK-VOS's own evaluator counts: {means}"
        )
    if overall.num_broken:
        frames = f"{overall.num_broken_frames} frames"
        lines.append(
            f"broken: {overall.num_broken} of {overall.num_samples} samples have files that cannot be judged ({frames}); each counts 0"
        )
    return lines
