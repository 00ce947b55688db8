"""Train with a tool of your own: `<length></length>` tells how many frames the whole video has, of
which the policy sees a few.

PYTHONPATH=examples seg-research train seg.episode.recipe=own_tool:OwnTool …
"""

from dataclasses import dataclass, replace
from functools import cached_property

from seg_research.data.sample import Sample
from seg_research.episode.action import Action, ParsedTurn
from seg_research.episode.tool import Tool, ToolDescription, text_observation
from seg_research.episode.transcript import Observation, Outcome
from seg_research.recipes.recipe import ToolServices
from seg_research.recipes.seg_research.grammar import SegResearchGrammar
from seg_research.recipes.seg_research.recipe import SegResearch

CALL = "<length></length>"
NOTE = f"To learn how many frames the video has: <thinking> what for </thinking> {CALL}"


@dataclass(frozen=True)
class Length(Action):
    """What such a turn means."""


class LengthTool:
    """What is done about it; an error for the policy's eyes would be a ToolError."""

    name = "length"

    def describe(self) -> ToolDescription:
        """Tell how a viewer calls it; the note above tells the policy."""
        return ToolDescription((), label="Length")

    def accepts(self, action: Action) -> bool:
        """Tell whether this tool carries out the action."""
        return isinstance(action, Length)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Count the frames."""
        count = len(list(sample.video_path.glob("*.jpg")))
        return text_observation(f"The video has {count} frames.", self.name, Outcome.OK)


@dataclass(frozen=True, slots=True)
class LengthGrammar(SegResearchGrammar):
    """The published grammar and one more turn; what is not ours is read as before."""

    def parse(self, text: str) -> ParsedTurn:
        """Read a turn."""
        thought, closed, call = text.removesuffix("<|im_end|>").strip().partition("</thinking>")
        if closed and thought.startswith("<thinking>") and call.strip() == CALL:
            return ParsedTurn(Length(), thought.removeprefix("<thinking>").strip())
        return SegResearchGrammar.parse(self, text)


class OwnTool(SegResearch):
    """The published recipe with that tool beside the others."""

    @cached_property
    def grammar(self) -> LengthGrammar:
        """Add the turn, its stop string and its tag."""
        base = LengthGrammar(self.texts.fault)
        stops = (*base.stop_strings, "</length>")
        return replace(base, stop_strings=stops, tags=base.tags | {"length"})

    def tools(self, services: ToolServices) -> tuple[Tool, ...]:
        """Add the tool."""
        return (*super().tools(services), LengthTool())

    def system_text(self, *, with_search: bool) -> str:
        """Add the note."""
        return f"{super().system_text(with_search=with_search)}\n{NOTE}"
