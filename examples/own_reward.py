"""Train with a reward of your own: the published terms, and one that pays for short thoughts.

PYTHONPATH=examples seg-research train seg.episode.recipe=own_reward:OwnReward …
"""

from dataclasses import dataclass, replace
from functools import cached_property

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.rewards.rubric import Rubric, Term, TermRole


@dataclass(frozen=True)
class ShortThoughts:
    """1 for thoughts of at most `words` words on average, less for longer ones; in [0, 1]."""

    words: int = 60
    name: str = "short_thoughts"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript: model turns only, so nothing that a tool returned can earn
        anything.
        """
        thoughts = [(turn.thinking or "").split() for turn in transcript.model_turns]
        mean_words = sum(map(len, thoughts)) / max(1, len(thoughts))
        return min(1.0, self.words / max(1.0, mean_words))


class OwnReward(SegResearch):
    """The published recipe with that term beside the others, paid only to episodes that answer."""

    @cached_property
    def rubric(self) -> Rubric:
        """Add the term."""
        base = super().rubric
        mine = Term(
            ShortThoughts(),
            weight=0.2,
            doc="1 for thoughts of at most 60 words on average, less for longer ones",
            role=TermRole.PROCESS,
            only_answered=True,
        )
        return replace(base, terms=(*base.terms, mine))
