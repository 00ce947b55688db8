"""From the CSVs of `results.py` to a page: figures (SVG), a table with intervals, and the
claims.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

mpl.use("svg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seg_common.files import atomic_path, write_atomic

sys.path.insert(0, str(Path(__file__).parent))
from results_claims import (
    ABILITIES,
    COLD_START,
    JUDGED,
    as_needed,
    check_claims,
    interval_over,
    last_step,
)

# Okabe and Ito's palette: told apart with every common colour blindness, and by lightness in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
BY_ABILITY = ("hierarchical", "outcome_only", "rigid_steps", "hierarchical_compat")
TRAINING = {
    "outcome": "outcome reward in training (0 to 4)",
    "valid": "well-formed training episodes",
    "searches": "searches per training episode",
    "tokens": "tokens per training episode",
}


def write_page(folder: Path) -> None:
    """Write one figure a comparison, one of the searches by ability, and `mini.md`, from the CSVs
    and the manifest in `folder`.
    """
    training, questions = (
        pd.read_csv(folder / "training.csv"),
        pd.read_csv(folder / "questions.csv"),
    )
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    plan = manifest["plan"]
    sections: list[str] = []
    for name, figure in plan["figures"].items():
        shown = [
            experiment for experiment in figure["show"] if experiment in set(training.experiment)
        ]
        # A comparison of which one side was run shows nothing that the first figure does not.
        if len(shown) > 1 or (shown and not sections):
            draw_comparison(training, questions, shown, folder / f"{name}.svg")
            sections.append(f"## {figure['title']}\n\n![{figure['title']}]({name}.svg)\n")
    compared = [name for name in BY_ABILITY if name in set(training.experiment)]
    if compared:
        draw_abilities(training, compared, folder / "abilities.svg")
        title = "Searches by ability"
        sections.append(f"## {title}\n\n![{title}](abilities.svg)\n")
    table, verdicts = (
        final_table(questions, plan["experiments"]),
        check_claims(questions, training, manifest["examination"]),
    )
    write_atomic(
        folder / "mini.md",
        "\n".join(
            [introduction(manifest, questions), table, verdicts, *sections, provenance(manifest)]
        ),
    )


def introduction(manifest: Mapping[str, Any], questions: pd.DataFrame) -> str:
    """Say what was run."""
    sizes, judging = manifest["sizes"], manifest["plan"]["judging"]
    runs = len(
        questions[questions.experiment != COLD_START][["experiment", "seed"]].drop_duplicates()
    )
    count = questions[questions.experiment == COLD_START].id.nunique()
    return (
        "# Experiments on mini\n\n"
        "<!-- Written by examples/train/mini/results.py; edits here are lost. -->\n\n"
        "A tiny Qwen3-VL, cold-started on expert episodes, trained further with RL on two CPU "
        "cores: "
        f"{runs} run{'s' * (runs > 1)} of {sizes['steps']} steps. "
        f"Every {sizes['eval_every']} steps the policy was judged on {count} questions "
        f"(benchmark of seed {judging['seed']}) about videos and entities that training never "
        "showed and that no setting was chosen on: "
        "as it samples in training (temperature 1), which is the policy that the gradient "
        "improves, and greedily. "
        "Lines are means over seeds; bands reach from the lowest to the highest seed.\n"
    )


def draw_comparison(
    training: pd.DataFrame, questions: pd.DataFrame, shown: Sequence[str], path: Path
) -> None:
    """Draw six panels over steps, one line an experiment."""
    judged = questions.groupby(["experiment", "seed", "step", "decoding"], as_index=False).JF.mean()
    figure, axes = _panels(len(JUDGED) + len(TRAINING), 3)
    for axis, (decoding, title) in zip(axes, JUDGED.items(), strict=False):
        own = judged[judged.decoding == decoding]
        start = own[own.experiment == COLD_START].JF.mean()
        for colour, name in zip(COLOURS, shown, strict=False):
            by_seed = own[own.experiment == name].pivot(index="step", columns="seed", values="JF")
            by_seed.loc[0] = start
            _band(axis, by_seed.sort_index(), colour, name)
        axis.set_title(title, loc="left", fontsize=10)
    _same_height(axes[: len(JUDGED)])
    for axis, (column, title) in zip(axes[len(JUDGED) :], TRAINING.items(), strict=True):
        for colour, name in zip(COLOURS, shown, strict=False):
            _band(axis, _smooth(training[training.experiment == name], column), colour, name)
        axis.set_title(title, loc="left", fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_abilities(training: pd.DataFrame, shown: Sequence[str], path: Path) -> None:
    """Draw searches per training episode over steps, one panel an experiment and one line an
    ability.
    """
    figure, axes = _panels(len(shown), 2)
    for axis, name in zip(axes, shown, strict=True):
        for colour, ability in zip(COLOURS, ABILITIES, strict=False):
            _band(
                axis,
                _smooth(training[training.experiment == name], f"searches {ability}"),
                colour,
                ability,
            )
        axis.set_title(f"searches per training episode, {name}", loc="left", fontsize=10)
    _same_height(axes, bottom=0)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _smooth(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return steps by seeds, each the mean of a tenth of the run around it."""
    by_seed = rows.pivot(index="step", columns="seed", values=column)
    return (
        by_seed.rolling(max(1, len(by_seed) // 10), min_periods=1, center=True).mean().sort_index()
    )


def _panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    axes = [axis for line in figure.subplots(rows, columns, squeeze=False) for axis in line]
    for axis in axes[count:]:
        axis.remove()
    del axes[count:]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
        axis.set_xlabel("RL steps", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _band(axis: Axes, by_seed: pd.DataFrame, colour: str, label: str) -> None:
    steps = by_seed.index.to_numpy()
    axis.plot(steps, by_seed.mean(axis=1), color=colour, label=label, linewidth=1.8)
    axis.fill_between(
        steps, by_seed.min(axis=1), by_seed.max(axis=1), color=colour, alpha=0.18, linewidth=0
    )


def _same_height(axes: Sequence[Axes], bottom: float | None = None) -> None:
    """Give axes that show the same quantity one range."""
    low, high = zip(*(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(low) if bottom is None else bottom, max(high))


def _save(figure: Figure, path: Path) -> None:
    # Without salt and date the same numbers would give another file.
    with (
        mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}),
        atomic_path(path) as staged,
    ):
        figure.savefig(staged, format="svg", metadata={"Date": None})


def final_table(questions: pd.DataFrame, experiments: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the Markdown table of the last judged step: J&F with its 95 % interval over clips and
    range over seeds, and the rest.
    """
    columns = [
        "",
        "J&F greedy",
        "J&F sampled",
        "95 % (clips)",
        "seeds",
        "outcome",
        "well-formed",
        "as needed",
        "searches",
        *ABILITIES,
    ]
    lines = [
        "## After training\n",
        f"| {' | '.join(columns)} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    for name in (COLD_START, *experiments):
        greedy, rows = last_step(questions, name, "greedy"), last_step(questions, name)
        if rows.empty:
            continue
        low, high = interval_over(rows.groupby("id").JF.mean())
        seeds = rows.groupby("seed").JF.mean()
        spread = (
            f"{seeds.min():.1f} to {seeds.max():.1f} ({len(seeds)})" if len(seeds) > 1 else "one"
        )
        by_ability = rows.groupby("ability").searches.mean()
        cells = [
            name,
            f"{greedy.JF.mean():.1f}",
            f"{rows.JF.mean():.1f}",
            f"{low:.1f} to {high:.1f}",
            spread,
            f"{rows.outcome.mean():.2f}",
        ]
        cells += [
            f"{100 * rows.valid.mean():.0f} %",
            f"{as_needed(rows).mean():.0f} %",
            f"{rows.searches.mean():.2f}",
        ]
        cells += [f"{by_ability[a]:.2f}" if a in by_ability else "" for a in ABILITIES]
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        "All but the first column are of sampled episodes. *As needed*: episodes with exactly "
        "as many searches as their question needs, "
        "however they end. The last four are searches per episode of each ability."
    )
    return "\n".join([*lines, "", note, ""])


def provenance(manifest: Mapping[str, Any]) -> str:
    """Say where the numbers come from."""
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    lines = [
        "## Where this comes from\n",
        *(
            f"{stage.capitalize()}: {commits(manifest['runs'], stage)}."
            for stage in ("training", "judging")
        ),
        f"Cold start: SHA-256 `{manifest['model_sha256']}`. Versions: {versions}.",
        "Every run's commit and minutes and the whole plan are in "
        "[manifest.json](manifest.json), the numbers behind the figures in "
        "[training.csv](training.csv) and [questions.csv](questions.csv).",
    ]
    if manifest["unfinished"]:
        lines.append(f"Not finished, and not counted: {', '.join(manifest['unfinished'])}.")
    plan = manifest["plan"]
    quick = " --quick" if manifest["sizes"] == plan["versions"]["quick"] else ""
    commands = [
        f"python examples/train/mini/experiments.py{quick}",
        "python examples/train/mini/results.py outputs/mini_experiments",
    ]
    return "\n".join([*lines, "", "```bash", *commands, "```", ""])


def commits(runs: Mapping[str, Any], stage: str) -> str:
    """Name the commits that did a stage of the runs, and the most minutes that it took."""
    stages = [run[stage] for run in runs.values()]
    named = sorted(
        {
            f"`{of['commit'][:12]}`{' with changed files' if of['changed_files'] else ''}"
            for of in stages
        }
    )
    return (
        f"commit {', '.join(named)}, at most {max(of['minutes'] for of in stages):.0f} minutes "
        "a run"
    )
