"""Policies without a model: an expert that knows the ground truth (the ceiling of everything after
it), and a hostile one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seg_research.core.seeding import derive_seed
from seg_research.data.sample import Sample
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import FinishReason, Message, TokenTrace
from seg_research.recipes.recipe import Recipe

Script = Callable[[Sample, int], Sequence[str]]
"""Gives the turns of one rollout of a sample, in order."""


class ScriptedConversation:
    """Say prepared turns in order, whatever is shown; after the last one, say nothing."""

    def __init__(self, turns: Sequence[str]) -> None:
        """Remember what to say."""
        self._turns = iter(turns)

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Accept any opening."""
        return True

    async def generate(self, max_tokens: int) -> Generation:
        """Say the next turn."""
        return Generation(next(self._turns, ""), FinishReason.STOP)

    async def observe(self, message: Message) -> bool:
        """Accept any observation."""
        return True

    def tokens(self) -> TokenTrace | None:
        """Return None: nothing was tokenised."""
        return None

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """A policy that follows a script."""

    script: Script

    def converse(self, sample: Sample, rollout: int) -> ScriptedConversation:
        """Start a conversation that follows the script."""
        return ScriptedConversation(self.script(sample, rollout))


def expert_script(recipe: Recipe) -> Script:
    """Follow the recipe's own expert, who knows the ground truth."""

    def turns(sample: Sample, rollout: int) -> list[str]:
        return [recipe.grammar.write(t.action, t.thinking) for t in recipe.demonstrate(sample)]

    return turns


def hostile_script(recipe: Recipe) -> Script:
    """Say turns that a broken or malicious policy might; sample and rollout fix the order."""

    def turns(sample: Sample, rollout: int) -> list[str]:
        order = list(recipe.hostile_turns())
        random.Random(derive_seed(0, "hostile", sample.sample_id, rollout)).shuffle(order)
        return order

    return turns


def expert(recipe: Recipe, seed: int) -> ScriptedPolicy:
    """Make the expert for a recipe; it makes no use of chance."""
    return ScriptedPolicy(expert_script(recipe))


def hostile(recipe: Recipe, seed: int) -> ScriptedPolicy:
    """Make the hostile policy for a recipe; its order depends on sample and rollout alone."""
    return ScriptedPolicy(hostile_script(recipe))
