"""Score recorded rollouts again: ours (predictions.jsonl, trajectory logs) or those the authors of
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

from seg_common.errors import UsageError

if TYPE_CHECKING:
    from seg_research.evaluation.score import Rescorer
    from seg_research.evaluation.score_summary import RescoreSummary

EXAMPLES = """examples:
  seg-research score step_020.jsonl --mode compat --json step_020.compat.json
  seg-research score outputs/eval/predictions.jsonl --settings outputs/run/model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("rollouts", type=Path, metavar="ROLLOUTS", help="JSON lines")
    parser.add_argument("--recipe", metavar="NAME", help="whose rewards (default: seg_research's)")
    parser.add_argument(
        "--mode",
        metavar="NAME",
        help="which definition of the rewards, where the recipe has several; of seg_research: "
        "robust (default), or compat, which is exactly the original's",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="MODEL",
        help="take recipe, preset, weights and thresholds from this checkpoint (default: the "
        "published)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from functools import partial

    from tqdm import tqdm

    from seg_research.evaluation.score import rescore
    from seg_research.evaluation.score_summary import RescoreSummary

    rescorer = _rescorer(options)
    size = options.rollouts.stat().st_size if options.rollouts.is_file() else 0
    summary = RescoreSummary()
    with tqdm(total=2 * size, unit="B", unit_scale=True, desc="score", file=sys.stderr) as bar:
        # Writing around the bar redraws it each time; a stream that is no terminal needs no such
        # care.
        say = partial(bar.write, file=sys.stdout) if sys.stdout.isatty() else print
        for row in rescore(options.rollouts, rescorer, options.json, bar.update):
            summary.add(row)
            if row.error:
                bar.write(
                    f"seg-research: {options.rollouts} line {row.line}: {row.error}",
                    file=sys.stderr,
                )
            for changed in row.disagreements:
                found = "unscored" if changed.found is None else f"{changed.found:.6g}"
                say(
                    f"line {row.line}: {changed.name} {changed.recorded:.6g} -> {found}: "
                    f"{changed.reason}"
                )
    print(summary.to_markdown(), end="")
    if options.json:
        print(f"written: {options.json}")
    return _verdict(summary)


def _rescorer(options: argparse.Namespace) -> Rescorer:
    from seg_research.evaluation.score import Rescorer
    from seg_research.recipes.registry import (
        DEFAULT_RECIPE,
        build_recipe,
        find_recipe,
        load_settings,
    )

    if options.settings is None:
        recipe = find_recipe(options.recipe or DEFAULT_RECIPE)
    else:
        recipe = build_recipe(load_settings(options.settings))
        if options.recipe not in (None, recipe.name):
            raise UsageError(
                f"--recipe {options.recipe}: the episodes of {options.settings} are of recipe "
                f"'{recipe.name}'; name one of the two"
            )
    return Rescorer(recipe.record_judge(options.mode), recipe.grammar.read_action)


def _verdict(summary: RescoreSummary) -> int:
    if not summary.num_broken:
        return 0
    sys.stderr.write(
        f"seg-research: {summary.num_broken} of {summary.num_rows} lines could not be read; fix "
        "them and run again\n"
    )
    return 1
