"""Recipes with a bug in them, for runs that must not go on as if nothing had happened
(PYTHONPATH=tests/smoke).
"""

from dataclasses import dataclass, replace

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Transcript
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.seg_research import recipe as seg_research
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.rewards.rubric import Term, TermRole


@dataclass(frozen=True)
class Divides:
    """Divides by the number of episodes seen so far, which it forgot to count."""

    name: str = "divides"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Fail."""
        return len(transcript.turns) / 0


def reward(*, rewards: RewardSettings | None = None, brief_prompt: bool = False) -> Recipe:
    """Return the published recipe with that term."""
    base = seg_research.recipe(rewards=rewards, brief_prompt=brief_prompt)
    broken = Term(Divides(), 0.1, "divides by zero", TermRole.PROCESS)
    return replace(
        base, name="broken", rubric=replace(base.rubric, terms=(*base.rubric.terms, broken))
    )
