"""Score recorded rollouts anew: ours (predictions.jsonl, trajectory logs) or those the authors of
Seg-ReSearch recorded.

Prints every recorded number that is another one now with its reason, and the mean of each term.
With --json, OUT holds one row for each line, in their order; the row of a broken line holds the
error, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from seg_common.errors import UsageError

if TYPE_CHECKING:
    from seg_research.evaluation.rescore_summary import RescoreSummary
    from seg_research.recipes.judge import Judge

EXAMPLES = """examples:
  seg-research score step_020.jsonl --mode compat --json step_020.compat.json
  seg-research score outputs/eval/predictions.jsonl --settings outputs/run/model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("rollouts", type=Path, metavar="ROLLOUTS", help="JSON lines")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="whose rewards (default: the checkpoint's, or seg_research)",
    )
    parser.add_argument(
        "--mode",
        default="",
        metavar="NAME",
        help="which of the recipe's definitions; seg_research has robust, ours and the default, "
        "and compat, exactly the original's",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="MODEL",
        help="take preset, weights and thresholds from this checkpoint (default: the published)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from functools import partial

    from seg_research.evaluation.rescore_rewards import rescore
    from seg_research.evaluation.rescore_summary import RescoreSummary

    judge = _judge(options)
    size = options.rollouts.stat().st_size if options.rollouts.is_file() else 0
    summary = RescoreSummary()
    with tqdm(total=2 * size, unit="B", unit_scale=True, desc="score", file=sys.stderr) as bar:
        # Writing around the bar redraws it each time; a stream that is no terminal needs no such
        # care.
        say = partial(bar.write, file=sys.stdout) if sys.stdout.isatty() else print
        for row in rescore(options.rollouts, judge, options.json, bar.update):
            summary.add(row)
            if row.error:
                bar.write(
                    f"seg-research: {options.rollouts} line {row.line}: {row.error}",
                    file=sys.stderr,
                )
            for changed in row.disagreements:
                found = "unscored" if changed.found is None else f"{changed.found:.6g}"
                numbers = f"{changed.name} {changed.recorded:.6g} -> {found}"
                say(f"line {row.line}: {numbers}: {changed.reason}")
    print(summary.to_markdown(), end="")
    if options.json:
        print(f"written: {options.json}")
    return _verdict(summary)


def _judge(options: argparse.Namespace) -> Judge:
    from seg_research.recipes.registry import (
        DEFAULT_RECIPE,
        build_recipe,
        find_recipe,
        load_settings,
    )

    if options.settings is None:
        return find_recipe(options.recipe or DEFAULT_RECIPE).judge(options.mode)
    settings = load_settings(options.settings)
    if options.recipe not in (None, settings.recipe):
        raise UsageError(
            f"{options.settings}: is of recipe '{settings.recipe}', not '{options.recipe}'; "
            "leave --recipe out"
        )
    return build_recipe(settings).judge(options.mode)


def _verdict(summary: RescoreSummary) -> int:
    if not summary.num_broken:
        return 0
    sys.stderr.write(
        f"seg-research: {summary.num_broken} of {summary.num_rows} lines could not be read; "
        "fix them and run again\n"
    )
    return 1
