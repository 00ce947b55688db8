"""Score masks: J (region), F (boundary) and J&F, overall and per ability, times 100.

Frames are averaged within a question, questions within an ability and overall. A question or frame without a mask counts 0 and is
counted beside the score. Judged are the frames for which the benchmark has a ground-truth PNG.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

EXAMPLES = """examples:
  seg-research evaluate outputs/eval/predictions.jsonl --truth data/OK_VOS/test_meta_mapping.json
  seg-research evaluate outputs/eval/seg --truth outputs/mini/test_meta_mapping.json --json outputs/eval/result.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "masks", type=Path, metavar="MASKS", help="folder of masks, or the predictions.jsonl beside whose seg folder they lie"
    )
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="META_MAPPING", help="[[id, folder of ground-truth PNGs, ability], …] as JSON"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="result file; the table goes beside it as .md (default: result.json beside the masks)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from tqdm import tqdm

    from seg_research.core.files import write_atomic
    from seg_research.evaluation.score import read_meta_mapping, score_masks
    from seg_research.metrics import SampleScore

    masks_dir: Path = options.masks.parent / "seg" if options.masks.suffix == ".jsonl" else options.masks
    mapping = read_meta_mapping(options.truth)
    with tqdm(total=len(mapping), unit="sample", desc="evaluate", file=sys.stderr) as bar:

        def advance(_: SampleScore) -> None:
            bar.update()

        table = score_masks(mapping, masks_dir, options.workers, advance)
    result: Path = options.json or masks_dir.with_name("result.json")
    write_atomic(result, json.dumps(table.to_json(), ensure_ascii=False, indent=1) + "\n")
    write_atomic(result.with_suffix(".md"), table.to_markdown())
    print(table.to_markdown(), end="")
    overall = table.overall
    if overall.num_missing:
        frames = f"{overall.num_missing_frames} frames"
        print(f"missing: {overall.num_missing} of {overall.num_samples} samples lack masks ({frames}); each counts 0")
    print(f"written: {result}, {result.with_suffix('.md')}")
    return 0
