"""Turn predictions into masks: one PNG for every frame of the video, 0 background and 255 target, in the video's size.

Masks go to <folder of PREDICTIONS>/seg/<id>/<frame>.png. Several objects of one answer are merged. A prediction without an answer gets
empty masks. Finished predictions are skipped when the command is run again. The exit code is 1 if any prediction failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

EXAMPLES = """examples:
  seg-research segment outputs/eval/predictions.jsonl
  seg-research segment outputs/eval/predictions.jsonl --backend box --out outputs/eval/box
  seg-research segment outputs/eval/predictions.jsonl --vis --workers 8
"""

MAX_LISTED = 20
BACKENDS = {"grabcut": "GrabCut on the key frame, optical flow from there on; no weights", "box": "the box, filled, on every frame"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    backends = "; ".join(f"{name}: {what}" for name, what in BACKENDS.items())
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="predictions.jsonl of this program or of the original")
    parser.add_argument("--backend", choices=tuple(BACKENDS), default="grabcut", help=f"{backends} (default: grabcut)")
    parser.add_argument("--out", type=Path, help="folder of the masks (default: seg beside PREDICTIONS)")
    parser.add_argument("--sample-idx", type=int, default=0, metavar="N", help="which rollout of each question (default: 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--vis", action="store_true", help="also write one MP4 a prediction with mask, box and points drawn")
    parser.add_argument("--overwrite", action="store_true", help="make masks anew that are already there")


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 if a prediction failed."""
    from tqdm import tqdm

    from post_segmentation.pipeline import Outcome, SegmentSettings, Status, read_rollout, segment
    from post_segmentation.propagator import Backend

    predictions = read_rollout(options.predictions, options.sample_idx)
    suffix = "" if options.sample_idx == 0 else f"_{options.sample_idx}"
    out: Path = options.out or options.predictions.parent / f"seg{suffix}"
    vis = out.with_name(f"{out.name}_vis" if options.out else f"vis{suffix}")
    settings = SegmentSettings(out, Backend(options.backend), vis if options.vis else None, max(1, options.workers), options.overwrite)
    with tqdm(total=len(predictions), unit="video", desc="segment", file=sys.stderr) as bar:

        def advance(outcome: Outcome) -> None:
            bar.set_postfix_str(outcome.sample_id[-40:], refresh=False)
            bar.update()

        outcomes = segment(predictions, settings, advance)
    counts = Counter(outcome.status for outcome in outcomes)
    print(
        f"masks of {len(outcomes) - counts[Status.FAILED]} of {len(outcomes)} predictions in {out} "
        f"(new: {counts[Status.MASKED] + counts[Status.EMPTY]}, already there: {counts[Status.KEPT]})"
    )
    if counts[Status.EMPTY]:
        print(f"without a usable answer, given empty masks: {counts[Status.EMPTY]}")
    if options.vis:
        print(f"videos in {vis}")
    failed = [outcome for outcome in outcomes if outcome.status is Status.FAILED]
    _report_failures([(outcome.sample_id, outcome.reason) for outcome in failed])
    return 1 if failed else 0


def _report_failures(failed: list[tuple[str, str]]) -> None:
    if not failed:
        return
    print(f"failed: {len(failed)} (fix the cause and run the same command again)", file=sys.stderr)
    for reason, count in Counter(reason for _, reason in failed).most_common(MAX_LISTED):
        first = next(sample_id for sample_id, why in failed if why == reason)
        print(f"  {first}{f' and {count - 1} more' if count > 1 else ''}: {reason}", file=sys.stderr)
