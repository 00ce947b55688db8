"""Recorded rollouts, judged again by a recipe: what they earn now, and why a number is another one.

`RubricJudge` serves every recipe. A recipe that knows more of its records (numbers under other
names, other definitions that were in use) gives a judge of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from seg_research.records.rollouts import Rollout
from seg_research.rewards.rubric import Rubric, Score, TermRole

OTHER_SETTINGS = "recorded with other settings, or by rules of an earlier version"

_ROUNDING = 1e-9


class ValueSource(NamedTuple):
    """Where a term's value comes from, or why it has none.

    Attributes:
        name: in result files; None where there is no value.
        text: the same in words, behind a count of rows.
    """

    name: str | None
    text: str


@dataclass(frozen=True, slots=True)
class JudgedRollout:
    """What one rollout earns now.

    Attributes:
        terms: by name; None where a term did not run.
        sums: parts of the score by name, under which records may hold them.
        counts: what is counted beside the rewards, by name.
        score: the total; None where the rollout says nothing about the policy.
        explain: tells why a recorded number of this name is another one now.
        sources: of terms whose value may come from several places.
    """

    terms: Mapping[str, float | None]
    sums: Mapping[str, float | None]
    counts: Mapping[str, float | None]
    score: float | None
    explain: Callable[[str], str]
    sources: Mapping[str, ValueSource] = field(default_factory=dict[str, ValueSource])

    @property
    def values(self) -> dict[str, float | None]:
        """Everything that a record may hold, by name; the score stands last."""
        return {**self.terms, **self.sums, **self.counts, "score": self.score}


class RecordJudge(Protocol):
    """Judges the rollouts of one file."""

    def survey(self, rollout: Rollout) -> None:
        """Look at a rollout before any is judged: every readable one of the file comes by."""
        ...

    def judge(self, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
        """Judge some rollouts together."""
        ...


class RubricJudge:
    """Judges by a rubric alone."""

    def __init__(self, rubric: Rubric) -> None:
        """Use this rubric."""
        self._rubric = rubric

    def survey(self, rollout: Rollout) -> None:
        """Learn nothing: every rollout is judged for itself."""

    def judge(self, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
        """Judge some rollouts together."""
        episodes = [(rollout.transcript, rollout.truth) for rollout in rollouts]
        return [self._judged(score) for score in self._rubric.score_many(episodes)]

    def _judged(self, score: Score) -> JudgedRollout:
        process = [term.name for term in self._rubric.terms if term.role is TermRole.PROCESS]
        paid = None if score.total is None else sum(score.paid.get(name, 0.0) for name in process)
        return JudgedRollout(
            {**score.terms, **score.factors},
            {TermRole.PROCESS.value: paid} if process else {},
            {},
            score.total,
            lambda name: OTHER_SETTINGS,
        )


def differ(a: float | None, b: float | None) -> bool:
    """Tell whether two values of a term are two; the order of additions makes none."""
    return (a is None) is not (b is None) if a is None or b is None else abs(a - b) > _ROUNDING
