"""A rubric: weighted terms, their sum, and the breakdown by name. A term that did not run is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from seg_research.core.errors import InvariantError
from seg_research.core.transcript import StopReason, Transcript
from seg_research.datasets.sample import GroundTruth


class RewardTerm(Protocol):
    """One named, pure component with a stated range."""

    @property
    def name(self) -> str:
        """Key of this term in logs and predictions."""
        ...

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """Total and breakdown of one transcript.

    Attributes:
        total: weighted sum; None where the episode says nothing about the policy (infrastructure failure, no ground truth).
        terms: unweighted value by term name; None where a term did not run.
    """

    total: float | None
    terms: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Rubric:
    """Terms, each of its own name, and their weights."""

    weighted_terms: tuple[tuple[RewardTerm, float], ...]

    def __post_init__(self) -> None:
        names = [term.name for term, _ in self.weighted_terms]
        if len(set(names)) < len(names):
            raise InvariantError(f"a rubric adds its terms up by name, and one stands twice in {names}")

    @property
    def max_total(self) -> float:
        """Upper bound of the total, every term being at most 1."""
        return sum(weight for _, weight in self.weighted_terms)

    def score(self, transcript: Transcript, truth: GroundTruth | None) -> Score:
        """Score a transcript; pure, the same arguments give the same score."""
        if truth is None or transcript.stop is StopReason.INFRA:
            return Score(None, {term.name: None for term, _ in self.weighted_terms})
        values = {term.name: term(transcript, truth) for term, _ in self.weighted_terms}
        total = sum(weight * values[term.name] for term, weight in self.weighted_terms)
        return Score(total, dict(values))
