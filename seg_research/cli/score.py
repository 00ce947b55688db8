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
    parser.add_argument("--recipe", default="seg_research", help="whose rewards")
    parser.add_argument(
        "--mode",
        choices=("robust", "compat"),
        default="robust",
        help="our definitions, or exactly the original's",
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

    from tqdm import tqdm

    from seg_research.evaluation.score import rescore
    from seg_research.evaluation.score_summary import RescoreSummary

    rescorer = _rescorer(options)
    size = options.rollouts.stat().st_size if options.rollouts.is_file() else 0
    summary = RescoreSummary()
    with tqdm(total=size, unit="B", unit_scale=True, desc="score", file=sys.stderr) as bar:
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
                    f"line {row.line}: {changed.name} {changed.recorded:.6g} -> {found}: {changed.reason}"
                )
    print(summary.to_markdown(), end="")
    if options.json:
        print(f"written: {options.json}")
    return _verdict(summary)


def _rescorer(options: argparse.Namespace) -> Rescorer:
    from dataclasses import replace

    from seg_research.evaluation.score import Rescorer
    from seg_research.recipes.registry import find_recipe, load_settings
    from seg_research.recipes.seg_research.reward_settings import Mode
    from seg_research.recipes.seg_research.settings import SegResearchSettings

    stored = load_settings(options.settings) if options.settings else SegResearchSettings()
    if not isinstance(stored, SegResearchSettings):
        raise UsageError(
            f"{options.settings}: recipe '{stored.recipe}' has no modes to score by; expected seg_research"
        )
    settings = stored.rewards
    by_mode = {Mode.ROBUST: settings, Mode.COMPAT: replace(settings, dense=False)}
    return Rescorer(
        Mode(options.mode),
        {
            mode: find_recipe(
                options.recipe,
                SegResearchSettings(options.recipe, rewards=replace(chosen, mode=mode)),
            ).rubric
            for mode, chosen in by_mode.items()
        },
    )


def _verdict(summary: RescoreSummary) -> int:
    if not summary.num_broken:
        return 0
    sys.stderr.write(
        f"seg-research: {summary.num_broken} of {summary.num_rows} lines could not be read; fix them and run again\n"
    )
    return 1
