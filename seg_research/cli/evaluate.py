"""Score masks by an evaluation protocol; `jf` gives J (region), F (boundary) and J&F.

A question or frame without a mask, or with a mask that cannot be read, counts 0 and is counted
beside the score. The exit code is 1 if a file could not be judged. What the columns mean:
docs/metrics.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from seg_common.arguments import at_least
from seg_common.errors import UsageError
from seg_common.files import write_atomic

if TYPE_CHECKING:
    from seg_research.evaluation.protocol import EvaluationResult

EXAMPLES = """examples:
  seg-research evaluate outputs/eval/predictions.jsonl --truth data/OK_VOS/test_meta_mapping.json
  seg-research evaluate outputs/eval/seg --truth outputs/mini/test_meta_mapping.json \\
      --json outputs/eval/result.json

"""
DEFAULT_PROTOCOL = "jf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seg_research.evaluation.protocols import PROTOCOLS

    listed = [f"  {name:10s} {summary}" for name, summary in PROTOCOLS.summaries().items()]
    parser.epilog = EXAMPLES + "protocols:\n" + "\n".join(listed)
    parser.add_argument(
        "masks",
        type=Path,
        metavar="MASKS",
        help="folder of masks, or the predictions.jsonl beside whose seg folder they lie",
    )
    parser.add_argument(
        "--protocol",
        default=DEFAULT_PROTOCOL,
        metavar="NAME",
        help=f"see below, or your own as package.module:NAME (default: {DEFAULT_PROTOCOL})",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        metavar="FILE",
        help="what counts, as the protocol has it; for jf [[id, folder of ground-truth PNGs, "
        "ability], …] as JSON",
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
        help="what weighs the same in the means of J and F (default: samples)",
    )
    parser.add_argument(
        "--inner-frames",
        action="store_true",
        help="leave out the first and last frame of each sample",
    )
    parser.add_argument(
        "--workers",
        type=at_least(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one a core)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    masks: Path = options.masks
    masks_dir = masks.parent / "seg" if masks.suffix == ".jsonl" else masks
    result = _evaluate(options, masks_dir)
    print(result.to_markdown(), end="")
    for line in result.remarks():
        print(line)
    out: Path = options.json or masks_dir.with_name("result.json")
    write_atomic(out, json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n")
    write_atomic(out.with_suffix(".md"), "\n".join([result.to_markdown(), *result.remarks(), ""]))
    print(f"written: {out}, {out.with_suffix('.md')}")
    return 1 if result.num_broken else 0


def _evaluate(options: argparse.Namespace, masks_dir: Path) -> EvaluationResult:
    from seg_research.evaluation.protocol import EvaluationJob
    from seg_research.evaluation.protocols import PROTOCOLS
    from seg_research.metrics import Averaging

    protocol = PROTOCOLS.find(options.protocol)
    with tqdm(unit="sample", desc="evaluate", file=sys.stderr) as bar:

        def advance(total: int, faults: Sequence[str]) -> None:
            bar.total = total
            bar.update()
            for fault in faults:
                bar.write(f"broken, counts 0: {fault}", file=sys.stderr)

        job = EvaluationJob(
            masks_dir,
            options.truth,
            options.workers,
            Averaging(options.average) if options.average else None,
            options.inner_frames,
            advance,
        )
        if job.has_choices and not protocol.takes_choices:
            raise UsageError(
                f"protocol {protocol.name} says which frames count and what is averaged; leave "
                "--average and --inner-frames out"
            )
        return protocol.evaluate(job)
