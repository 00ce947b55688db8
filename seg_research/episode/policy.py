"""What an episode needs of a policy. Hosts (verl, the predictor, tests) implement it; the
conversation owns the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from seg_research.data.sample import Sample
from seg_research.episode.transcript import FinishReason, Message, TokenTrace


@dataclass(frozen=True, slots=True)
class Generation:
    """One sampled turn."""

    text: str
    finish: FinishReason = FinishReason.STOP
    num_tokens: int = 0
    logprobs: tuple[float, ...] = ()
    seconds: float = 0.0


class Conversation(Protocol):
    """One chat with a policy. What it is shown is admitted whole or not at all: no message and no
    image is ever cut.
    """

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Show the opening messages; False if they do not fit the prompt budget."""
        ...

    async def generate(self, max_tokens: int) -> Generation:
        """Sample one turn of at most `max_tokens` tokens, fewer where the response budget ends."""
        ...

    async def observe(self, message: Message) -> bool:
        """Show a message after a turn; False, with nothing changed, if it does not fit."""
        ...

    def tokens(self) -> TokenTrace | None:
        """Return the tokens so far; None for policies without tokens."""
        ...

    async def close(self) -> None:
        """End the conversation; called exactly once."""
        ...


class Policy(Protocol):
    """Opens conversations. `rollout` numbers repeated attempts at one sample."""

    def converse(self, sample: Sample, rollout: int) -> Conversation:
        """Start a conversation about a sample; nothing is shown to the policy yet."""
        ...
