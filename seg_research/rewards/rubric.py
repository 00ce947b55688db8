"""A rubric: total = (sum of weight x term) x product of factors, with the breakdown by name. A
term that did not run is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

from seg_common.errors import InvariantError
from seg_research.core.prediction import Prediction
from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.rewards.similarity import Similarity

FinishedEpisode: TypeAlias = tuple[Transcript, GroundTruth | None]
"""A finished transcript and what is known of the right answer."""


class RewardTerm(Protocol):
    """One named, pure function of a finished episode with a stated range."""

    @property
    def name(self) -> str:
        """Key of this term in logs and predictions."""
        ...

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float | None:
        """Score one transcript; None where the term has nothing to judge by."""
        ...


@runtime_checkable
class ComparesTexts(Protocol):
    """A term that compares queries of the policy with annotated steps by meaning."""

    def queries(self, transcript: Transcript, truth: GroundTruth) -> Sequence[str]:
        """Return the texts of this transcript that scoring it will ask the meaning of; they are
        compared with `truth.steps`.
        """
        ...


class TermRole(StrEnum):
    """What a term judges: the result, or the way to it. Group normalisation tells them apart."""

    OUTCOME = "outcome"
    PROCESS = "process"


class PaidWhen(StrEnum):
    """For which samples a term is paid; it is logged for the others as well."""

    ALWAYS = "always"
    WITH_STEPS = "with_steps"
    WITHOUT_STEPS = "without_steps"

    def applies_to(self, truth: GroundTruth) -> bool:
        """Tell whether a sample with this ground truth pays."""
        return self is PaidWhen.ALWAYS or (self is PaidWhen.WITH_STEPS) == bool(truth.steps)


@dataclass(frozen=True, slots=True)
class Term:
    """A summand of a rubric, with its weight and its documentation.

    Attributes:
        score: the function.
        weight: 0 logs the term and pays nothing.
        doc: what it pays, one line; the tables of terms in the documents are made from it.
        only_answered: without an answer the term is 0.
        count: for a term that is paid per step (per search, say): the number of those steps. Group
            normalisation then keeps more steps from beating fewer (`GroupSettings.level_per_step`).
    """

    score: RewardTerm
    weight: float
    doc: str
    role: TermRole = TermRole.OUTCOME
    when: PaidWhen = PaidWhen.ALWAYS
    only_answered: bool = False
    count: Callable[[Transcript], int] | None = None

    @property
    def name(self) -> str:
        """Key of this term in logs and predictions."""
        return self.score.name


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that the sum of the terms is multiplied by, such as a penalty on length.

    Attributes:
        score: the function; None leaves the sum as it is.
        doc: what it does, one line.
    """

    score: RewardTerm
    doc: str

    @property
    def name(self) -> str:
        """Key of this factor in logs and predictions."""
        return self.score.name


@dataclass(frozen=True, slots=True)
class Score:
    """Total and breakdown of one transcript.

    Attributes:
        total: None where the episode says nothing about the policy (infrastructure failure, no
            ground truth).
        terms: unweighted value by term name; None where a term did not run.
        paid: weighted value, times the factors, by name of the terms that were paid; adds up to
            the total.
        outcome: sum of the outcome terms that were paid, before the factors: how right the result
            is, whatever the way to it cost.
        factors: value by factor name; None where a factor did not run.
    """

    total: float | None
    terms: dict[str, float | None]
    paid: dict[str, float] = field(default_factory=dict[str, float])
    outcome: float | None = None
    factors: dict[str, float | None] = field(default_factory=dict[str, float | None])


@dataclass(frozen=True, slots=True)
class RewardBreakdown:
    """What one rollout earned, as group normalisation needs it.

    Attributes:
        total: the reward.
        paid: as in `Score`; adds up to the total.
        outcome: as in `Score`.
        answered: the policy gave a final answer.
        counts: number of steps by name of each term that is paid per step.
    """

    total: float
    paid: Mapping[str, float]
    outcome: float
    answered: bool
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Rubric:
    """Terms and factors, each of its own name.

    Attributes:
        final: reads from a transcript what the episode finally claims.
        similarity: shared by the terms that compare texts; None where there are none.
    """

    terms: tuple[Term, ...]
    final: Callable[[Transcript], Prediction]
    factors: tuple[Factor, ...] = ()
    similarity: Similarity | None = None

    def __post_init__(self) -> None:
        names = [entry.name for entry in (*self.terms, *self.factors)]
        if len(set(names)) < len(names):
            raise InvariantError(
                f"a rubric adds its terms up by name, and one stands twice in {names}"
            )

    def score(self, transcript: Transcript, truth: GroundTruth | None) -> Score:
        """Score a transcript; pure, the same arguments give the same score."""
        if truth is None or transcript.stop is StopReason.INFRA:
            return Score(
                None,
                dict.fromkeys(term.name for term in self.terms),
                factors=dict.fromkeys(factor.name for factor in self.factors),
            )
        answered = self.final(transcript).answered
        terms: dict[str, float | None] = {}
        paid: dict[str, float] = {}
        sums = dict.fromkeys(TermRole, 0.0)
        for term in self.terms:
            value = term.score(transcript, truth)
            if value is not None and term.only_answered and not answered:
                value = 0.0
            terms[term.name] = value
            if value is not None and term.weight and term.when.applies_to(truth):
                paid[term.name] = term.weight * value
                sums[term.role] += paid[term.name]
        factors = {factor.name: factor.score(transcript, truth) for factor in self.factors}
        product = math.prod(value for value in factors.values() if value is not None)
        return Score(
            # Added up role by role, as the original does: its totals are met to the last digit.
            sum(sums.values()) * product,
            terms,
            {name: value * product for name, value in paid.items()},
            sums[TermRole.OUTCOME],
            factors,
        )

    def breakdown(self, transcript: Transcript, score: Score) -> RewardBreakdown | None:
        """Describe what a transcript earned; None where its score says nothing about the policy."""
        if score.total is None or score.outcome is None:
            return None
        return RewardBreakdown(
            score.total,
            score.paid,
            score.outcome,
            self.final(transcript).answered,
            {term.name: term.count(transcript) for term in self.terms if term.count is not None},
        )

    def unknown_texts(self, episodes: Sequence[FinishedEpisode]) -> list[str]:
        """List what has to be embedded before these episodes can be scored, each text once."""
        if self.similarity is None:
            return []
        functions = [entry.score for entry in (*self.terms, *self.factors)]
        comparing = [score for score in functions if isinstance(score, ComparesTexts)]
        texts: list[str] = []
        for transcript, truth in episodes:
            if truth is None or not truth.steps or transcript.stop is StopReason.INFRA:
                continue
            queries: list[str] = []
            for score in comparing:
                queries += score.queries(transcript, truth)
            texts += [*truth.steps, *queries] if queries else []
        return self.similarity.unknown(texts)

    def score_many(self, episodes: Sequence[FinishedEpisode]) -> list[Score]:
        """Score episodes like `score` does, embedding what all of them need in one go."""
        unknown = self.unknown_texts(episodes)
        if unknown and self.similarity is not None:
            self.similarity.embed(unknown)
        return [self.score(transcript, truth) for transcript, truth in episodes]
