"""The seam between an episode and its tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from seg_research.data.sample import Sample
from seg_research.episode.action import Action
from seg_research.episode.transcript import Message, Observation, Outcome, Text


@dataclass(frozen=True, slots=True)
class ToolFunction:
    """One thing a policy can ask of a tool.

    Attributes:
        name: what the policy calls it.
        description: for the policy, in a few words.
        parameters: type of each argument by its name, in the words of JSON schema.
    """

    name: str
    description: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def prompt_line(self) -> str:
        """The line of a prompt that offers this function."""
        line = {
            "name": self.name,
            "parameters": dict(self.parameters),
            "description": self.description,
        }
        return json.dumps(line, ensure_ascii=False)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        properties = {name: {"type": kind} for name, kind in self.parameters.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """What a tool tells about itself; prompts, escaping, records and viewers derive from it.

    Attributes:
        functions: what a policy can ask of it.
        tags: names of the tags that its results use; foreign text must not hold them intact.
        label: what a viewer calls its results.
    """

    functions: tuple[ToolFunction, ...]
    tags: frozenset[str] = frozenset()
    label: str = ""


class Tool(Protocol):
    """Carries out one kind of action."""

    @property
    def name(self) -> str:
        """What logs and guards call this tool."""
        ...

    def describe(self) -> ToolDescription:
        """Tell what the tool offers; needs no service."""
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
