"""What the paper claims, judged by rules that are stated on the page, on the judged questions and
the training episodes of `results.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from seg_research.metrics.bootstrap import interval

COLD_START = "cold_start"
NEEDED = {"in-video": 0, "one-hop": 1, "multi-hop": 2, "relational": 1}
"""Searches that a question of each ability needs."""
ABILITIES = tuple(NEEDED)
JUDGED = {"sampled": "J&F on test, %, as in training", "greedy": "J&F on test, %, greedy"}


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
