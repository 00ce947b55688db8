"""From the CSVs of `results.py` to figures (SVG), a table with intervals and a verdict on each
claim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("svg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seg_common.files import atomic_path, write_atomic
from seg_research.metrics.bootstrap import interval

COLD_START = "cold_start"
# Okabe and Ito's palette: told apart with every common colour blindness, and by lightness in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
NEEDED = {"in-video": 0, "one-hop": 1, "multi-hop": 2, "relational": 1}
"""Searches that a question of each ability needs."""
ABILITIES = tuple(NEEDED)
BY_ABILITY = ("hierarchical", "outcome_only", "rigid_steps", "hierarchical_compat")
JUDGED = {"sampled": "J&F on test, %, as in training", "greedy": "J&F on test, %, greedy"}
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


def as_needed(rows: pd.DataFrame) -> pd.Series:
    """Return 100 for each episode that searched exactly as often as its question needs, else 0."""
    return 100.0 * (rows.searches == rows.ability.map(NEEDED))


def last_step(questions: pd.DataFrame, name: str, decoding: str = "sampled") -> pd.DataFrame:
    """Return the rows of an experiment's last judged step."""
    mine = questions[(questions.experiment == name) & (questions.decoding == decoding)]
    return mine[mine.step == mine.step.max()]


def interval_over(per_question: pd.Series) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of figures indexed by question id; clips are
    drawn, each with all its questions.
    """
    by_clip = per_question.groupby(per_question.index.str.rsplit("_", n=1).str[0]).agg(
        ["sum", "count"]
    )
    sums, counts = (
        by_clip[column].to_numpy(dtype=np.float64)[:, None, None] for column in ("sum", "count")
    )
    low, high = interval(
        sums, counts, lambda drawn_sums, drawn_counts: (drawn_sums / drawn_counts)[:, 0, 0]
    )
    return float(low), float(high)


@dataclass(frozen=True)
class Claim:
    """What the paper says, what was seen here, and whether that agrees (None: not run)."""

    text: str
    seen: str
    holds: bool | None

    def __str__(self) -> str:
        verdict = {True: "agrees", False: "**does not agree**", None: "not run"}[self.holds]
        return f"| {self.text} | {self.seen} | {verdict} |"


def check_claims(
    questions: pd.DataFrame, training: pd.DataFrame, examination: Mapping[str, Any] | None
) -> str:
    """Return the table of claims, each judged by a stated rule: J&F on the last judged step,
    searches on training episodes.
    """
    claims = [
        interleaved(examination),
        *beats(
            questions,
            "hierarchical",
            COLD_START,
            margin=10.0,
            text="RL from the cold start gains at least 10 points of J&F",
        ),
        *beats(
            questions,
            "hierarchical",
            "outcome_only",
            text="the hierarchical reward beats outcome only",
        ),
        *beats(
            questions,
            "hierarchical",
            "rigid_steps",
            text="the hierarchical reward beats rigid imitation of steps",
        ),
        *search_claims(training),
        sooner(training),
        farming(questions),
        *(
            efficient(questions, other)
            for other in ("outcome_only", "rigid_steps", "hierarchical_compat")
        ),
    ]
    return "\n".join(
        ["## Claims\n", "| claim | seen here | |", "|---|---|---|", *map(str, claims), "", _RULE]
    )


_RULE = (
    "One experiment beats another if its lowest seed lies above the other's highest; where a "
    "margin is named, the means must differ by it. "
    "Intervals are bootstraps over clips, whose questions count with their mean over seeds; "
    "those of differences are paired. "
    "Searches by ability are those of training episodes, in the first and the last fifth of "
    "the steps. "
    "Farming must make a quarter of a search on the test. That episodes search as often as "
    "needed was added when most runs had been seen.\n"
)


def beats(
    questions: pd.DataFrame, better: str, worse: str, *, text: str, margin: float = 0.0
) -> list[Claim]:
    """Compare the J&F of two experiments, seed against seed, for each way of decoding."""
    claims: list[Claim] = []
    for decoding in JUDGED:
        ours, theirs = (last_step(questions, name, decoding) for name in (better, worse))
        if ours.empty or theirs.empty:
            claims.append(Claim(f"{text} ({decoding})", "", None))
            continue
        by_question = ours.groupby("id").JF.mean() - theirs.groupby("id").JF.mean()
        low, high = interval_over(by_question)
        ours, theirs = (rows.groupby("seed").JF.mean() for rows in (ours, theirs))
        seen = ", ".join(
            f"{name} {jf.mean():.1f} ({jf.min():.1f} to {jf.max():.1f})"
            for name, jf in ((better, ours), (worse, theirs))
        )
        seen += f"; difference {by_question.mean():+.1f}, 95 % {low:+.1f} to {high:+.1f}"
        claims.append(
            Claim(
                f"{text} ({decoding})",
                seen,
                bool(ours.min() > theirs.max() and ours.mean() >= theirs.mean() + margin),
            )
        )
    return claims


def interleaved(examination: Mapping[str, Any] | None) -> Claim:
    """Judge whether the cold start needs what its searches return; it may never have been
    examined.
    """
    if examination is None:
        return Claim(
            "interleaved search beats answering without what it finds, by 20 points", "", None
        )
    scores = examination["J&F"]
    found, withheld, guess = (
        scores["with passages"],
        scores["passages withheld"],
        scores["any figure, best frame"],
    )
    who = f"cold start, greedy, {examination['questions']} other questions"
    text = f"interleaved search beats answering without what it finds, by 20 points ({who})"
    return Claim(
        text,
        f"{found:.1f} with passages, {withheld:.1f} with them withheld, {guess:.1f} for any figure",
        found - withheld >= 20,
    )


def search_claims(training: pd.DataFrame) -> list[Claim]:
    """Judge how often the hierarchical policy searches in the last fifth of its training, by
    ability, and what it did in the first.
    """
    texts = (
        "multi-hop questions come to be searched more often than one-hop",
        "one-hop questions are searched about once",
        "in-video questions cease to be searched",
    )
    rows = training[training.experiment == "hierarchical"]
    if rows.empty:
        return [Claim(text, "", None) for text in texts]
    fifth = max(1, rows.step.max() // 5)
    first, last = rows[rows.step <= fifth], rows[rows.step > rows.step.max() - fifth]
    before, now = (
        {ability: part[f"searches {ability}"].mean() for ability in ABILITIES}
        for part in (first, last)
    )
    one, multi, video = now["one-hop"], now["multi-hop"], now["in-video"]
    return [
        Claim(
            texts[0],
            f"{before['multi-hop']:.2f} against {before['one-hop']:.2f}, then {multi:.2f} "
            f"against {one:.2f}",
            bool(multi > one),
        ),
        Claim(texts[1], f"{one:.2f}", bool(abs(one - 1) <= 0.25)),
        Claim(
            texts[2],
            f"{before['in-video']:.2f}, then {video:.2f}",
            bool(video < max(0.05, before["in-video"] / 2)),
        ),
    ]


def sooner(training: pd.DataFrame) -> Claim:
    """Judge whether the hierarchical reward leads to two searches where two are needed before the
    outcome alone does.
    """
    text = (
        "the hierarchical reward finds the second search of multi-hop questions sooner than "
        "outcome only"
    )
    mean = training.groupby(["experiment", "seed"])["searches multi-hop"].mean()
    if not {"hierarchical", "outcome_only"} <= set(training.experiment):
        return Claim(text, "", None)
    ours, theirs = mean["hierarchical"], mean["outcome_only"]
    seen = ", ".join(f"{of.mean():.2f} ({of.min():.2f} to {of.max():.2f})" for of in (ours, theirs))
    return Claim(text, f"{seen} searches over all steps", bool(ours.min() > theirs.max()))


def farming(questions: pd.DataFrame) -> Claim:
    """Judge whether the published rewards make a policy search more than ours."""
    text = "under the published rewards the policy farms searches"
    ours, theirs = (
        last_step(questions, name).searches.mean()
        for name in ("hierarchical", "hierarchical_compat")
    )
    if np.isnan(ours) or np.isnan(theirs):
        return Claim(text, "", None)
    return Claim(
        text, f"{theirs:.2f} searches an episode against {ours:.2f}", bool(theirs > ours + 0.25)
    )


def efficient(questions: pd.DataFrame, other: str) -> Claim:
    """Judge whether the hierarchical policy searches exactly as often as needed in more episodes
    than another.
    """
    text = (
        "the hierarchical reward makes more episodes search exactly as often as needed than "
        f"{other} (sampled)"
    )
    rows = [last_step(questions, name) for name in ("hierarchical", other)]
    if any(of.empty for of in rows):
        return Claim(text, "", None)
    ours, theirs = (as_needed(of).groupby(of.seed).mean() for of in rows)
    seen = " against ".join(
        f"{of.mean():.1f} % ({of.min():.1f} to {of.max():.1f})" for of in (ours, theirs)
    )
    return Claim(text, seen, bool(ours.min() > theirs.max()))


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
