"""A rubric: weighted terms, their sum, and the breakdown by name. A term that did not run is None,
never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

from seg_common.errors import InvariantError
from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.recipes.seg_research.final_answer import read_verdict
from seg_research.rewards.similarity import Similarity

Episode: TypeAlias = tuple[Transcript, GroundTruth | None]
"""A finished transcript and what is known of the right answer."""


class RewardTerm(Protocol):
    """One named, pure component with a stated range."""

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


class Part(StrEnum):
    """Which part of the reward a term belongs to; group normalisation tells them apart."""

    OUTCOME = "outcome"
    PROCESS = "process"


class Gate(StrEnum):
    """For which samples a term is paid; it is logged for the others as well."""

    ALWAYS = "always"
    WITH_STEPS = "with_steps"
    WITHOUT_STEPS = "without_steps"

    def is_open(self, truth: GroundTruth) -> bool:
        """Tell whether a sample with this ground truth pays."""
        return self is Gate.ALWAYS or (self is Gate.WITH_STEPS) == bool(truth.steps)


@dataclass(frozen=True, slots=True)
class Weighted:
    """A term's place in a rubric.

    Attributes:
        weight: 0 logs the term and pays nothing.
        only_answered: without an answer the term is 0.
    """

    term: RewardTerm
    weight: float
    part: Part = Part.OUTCOME
    gate: Gate = Gate.ALWAYS
    only_answered: bool = False

    def value(self, transcript: Transcript, truth: GroundTruth) -> float | None:
        """Return what the term says of a transcript, before weight and gate."""
        value = self.term(transcript, truth)
        if value is None or not self.only_answered:
            return value
        return 0.0 if read_verdict(transcript).answer is None else value


@dataclass(frozen=True, slots=True)
class Score:
    """Total and breakdown of one transcript.

    Attributes:
        total: sum of what was paid; None where the episode says nothing about the policy
            (infrastructure failure, no ground truth).
        terms: unweighted value by term name; None where a term did not run.
        paid: weighted value by name of the terms that were paid; adds up to the total.
        outcome: share of the outcome terms in the total.
    """

    total: float | None
    terms: dict[str, float | None]
    paid: dict[str, float] = field(default_factory=dict[str, float])
    outcome: float | None = None


@dataclass(frozen=True, slots=True)
class Rubric:
    """Terms, each of its own name, and their weights.

    Attributes:
        similarity: shared by the terms that compare texts; None where there are none.
    """

    terms: tuple[Weighted, ...]
    similarity: Similarity | None = None

    def __post_init__(self) -> None:
        names = [entry.term.name for entry in self.terms]
        if len(set(names)) < len(names):
            raise InvariantError(
                f"a rubric adds its terms up by name, and one stands twice in {names}"
            )

    @property
    def max_total(self) -> float:
        """Upper bound of the total, every term being at most 1."""
        weights = {
            gate: sum(entry.weight for entry in self.terms if entry.gate is gate) for gate in Gate
        }
        return weights[Gate.ALWAYS] + max(weights[Gate.WITH_STEPS], weights[Gate.WITHOUT_STEPS])

    def score(self, transcript: Transcript, truth: GroundTruth | None) -> Score:
        """Score a transcript; pure, the same arguments give the same score."""
        if truth is None or transcript.stop is StopReason.INFRA:
            return Score(None, {entry.term.name: None for entry in self.terms})
        terms: dict[str, float | None] = {}
        paid: dict[str, float] = {}
        parts = dict.fromkeys(Part, 0.0)
        for entry in self.terms:
            value = terms[entry.term.name] = entry.value(transcript, truth)
            if value is not None and entry.weight and entry.gate.is_open(truth):
                paid[entry.term.name] = entry.weight * value
                parts[entry.part] += paid[entry.term.name]
        # Added up part by part, as the original does: its totals are met to the last digit.
        return Score(sum(parts.values()), terms, paid, parts[Part.OUTCOME])

    def unknown_texts(self, episodes: Sequence[Episode]) -> list[str]:
        """List what has to be embedded before these episodes can be scored, each text once."""
        if self.similarity is None:
            return []
        comparing = [entry.term for entry in self.terms if isinstance(entry.term, ComparesTexts)]
        texts: list[str] = []
        for transcript, truth in episodes:
            if truth is None or not truth.steps or transcript.stop is StopReason.INFRA:
                continue
            queries = [query for term in comparing for query in term.queries(transcript, truth)]
            texts += [*truth.steps, *queries] if queries else []
        return self.similarity.unknown(texts)

    def score_many(self, episodes: Sequence[Episode]) -> list[Score]:
        """Score episodes like `score` does, embedding what all of them need in one go."""
        unknown = self.unknown_texts(episodes)
        if unknown and self.similarity is not None:
            self.similarity.embed(unknown)
        return [self.score(transcript, truth) for transcript, truth in episodes]
