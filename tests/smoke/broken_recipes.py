"""Recipes with a bug in them, for runs that must not go on as if nothing had happened
(PYTHONPATH=tests/smoke).
"""

from dataclasses import dataclass, replace
from functools import cached_property

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.rewards.rubric import Rubric, Term, TermRole


@dataclass(frozen=True)
class Divides:
    """Divides by the number of episodes seen so far, which it forgot to count."""

    name: str = "divides"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Fail."""
        return len(transcript.turns) / 0


class BrokenReward(SegResearch):
    """The published recipe with that term."""

    @cached_property
    def rubric(self) -> Rubric:
        """Add the term."""
        base = super().rubric
        broken = Term(Divides(), 0.1, "divides by zero", TermRole.PROCESS)
        return replace(base, terms=(*base.terms, broken))
