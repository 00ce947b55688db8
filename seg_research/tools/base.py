"""The seam between an episode and its tools."""

from __future__ import annotations

from typing import Protocol

from seg_research.data.sample import Sample
from seg_research.episode.action import Action
from seg_research.episode.transcript import Message, Observation, Outcome, Text


class Tool(Protocol):
    """Carries out one kind of action."""

    @property
    def name(self) -> str:
        """What logs and guards call this tool."""
        ...

    def accepts(self, action: Action) -> bool:
        """Tell whether this tool carries out the action."""
        ...

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Carry the action out.

        Raises:
            ToolError: the request cannot be met; its text is shown to the policy.
            InfraError: a service failed after its retries; the episode ends.
        """
        ...


def text_observation(text: str, tool: str, outcome: Outcome, summary: str = "") -> Observation:
    """Build an observation of text alone, as a user message."""
    return Observation(Message("user", (Text(text),)), tool, outcome, summary or text)
