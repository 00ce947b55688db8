"""What a recipe says of recorded rollouts: their rewards as they come out now, and where those
differ from what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from seg_research.records.reader import read_rollout
from seg_research.records.rollouts import ReadAction, Rollout
from seg_research.rewards.rubric import Rubric, Score

Values: TypeAlias = Mapping[str, float | None]
"""Numbers by name; None where one could not be computed."""

OTHER_SETTINGS = "recorded with other settings, or by rules of an earlier version"
SCORE = "score"
"""Name of the total."""

_ROUNDING = 1e-9


class Disagreement(NamedTuple):
    """A recorded number that is another one now."""

    name: str
    recorded: float
    found: float | None
    reason: str


class Note(NamedTuple):
    """How something about a rollout was found out; a summary counts notes on one topic."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rollout, scored.

    Attributes:
        terms: unweighted, by name.
        beside: further numbers, among them the total.
        fields: further values of the result row.
    """

    terms: Values
    beside: Values
    disagreements: tuple[Disagreement, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    note: Note | None = None

    @property
    def values(self) -> Values:
        """All numbers."""
        return {**self.terms, **self.beside}


class Judge(Protocol):
    """Scores recorded rollouts of one file by the definitions of one recipe."""

    def read(self, fields: Mapping[str, Any]) -> Rollout:
        """Read a line.

        Raises:
            UsageError: it is no rollout; names the field.
        """
        ...

    def survey(self, rollout: Rollout) -> None:
        """Look at a rollout: all of a file come by before any of them is judged."""
        ...

    def judge(self, rollouts: Sequence[Rollout]) -> Sequence[Judgement]:
        """Score rollouts together: what has to be embedded for them is embedded in one go."""
        ...


@dataclass(frozen=True, slots=True)
class RubricJudge:
    """Scores by a rubric and compares by name."""

    rubric: Rubric
    read_action: ReadAction

    def read(self, fields: Mapping[str, Any]) -> Rollout:
        """Read a line."""
        return read_rollout(fields, self.read_action)

    def survey(self, rollout: Rollout) -> None:
        """Learn nothing: every rollout is judged for itself."""

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """Score rollouts together."""
        scores = self.rubric.score_many([(one.transcript, one.truth) for one in rollouts])
        return [self._judge(*pair) for pair in zip(rollouts, scores, strict=True)]

    def _judge(self, rollout: Rollout, score: Score) -> Judgement:
        beside = {**score.factors, SCORE: score.total}
        values: Values = {**score.terms, **beside}
        disagreements: list[Disagreement] = []
        if score.total is not None:
            disagreements += disagreements_between(
                rollout.recorded, values, lambda _: OTHER_SETTINGS
            )
        return Judgement(score.terms, beside, tuple(disagreements))


def disagreements_between(
    recorded: Mapping[str, float], values: Values, reason_of: Callable[[str], str]
) -> list[Disagreement]:
    """Return the recorded numbers that differ now, the total last; `reason_of` is asked for each in
    this order.
    """
    names = sorted(recorded, key=lambda name: name == SCORE)
    return [
        Disagreement(name, recorded[name], values[name], reason_of(name))
        for name in names
        if name in values and differ(recorded[name], values[name])
    ]


def differ(a: float | None, b: float | None) -> bool:
    """Tell whether two values of a term are two; the order of additions makes none."""
    return (a is None) is not (b is None) if a is None or b is None else abs(a - b) > _ROUNDING
