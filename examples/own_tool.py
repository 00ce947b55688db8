"""Train with a tool of your own: `<length></length>` tells how many frames the whole video has, of
which the policy sees a few.

PYTHONPATH=examples seg-research train seg.episode.recipe=own_tool:recipe …
"""

import re
from dataclasses import replace
from typing import Any

from seg_research.data.sample import Sample
from seg_research.episode.action import Action, ParsedTurn
from seg_research.episode.transcript import Observation, Outcome
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.seg_research import recipe as seg_research
from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.tools.base import text_observation

TURN = re.compile(
    r"\s*<thinking>(.*?)</thinking>\s*<length>\s*</length>\s*(?:<\|im_end\|>)?", re.DOTALL
)
NOTES = "To learn how many frames the video has: <thinking> what for </thinking> <length></length>"


class Length(Action):
    """What such a turn means."""


class LengthTool:
    """What is done about it (seg_research.tools.base.Tool); an error for the policy's eyes would be
    a ToolError.
    """

    name = "length"

    def accepts(self, action: Action) -> bool:
        """Tell whether this tool carries out the action."""
        return isinstance(action, Length)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Count the frames."""
        return text_observation(
            f"The video has {len(list(sample.video_path.glob('*.jpg')))} frames.",
            self.name,
            Outcome.OK,
        )


def parse(text: str) -> ParsedTurn:
    """Read a turn; what is not ours is read as before."""
    found = TURN.fullmatch(text)
    return ParsedTurn(Length(), found[1].strip()) if found else parse_turn(text)


def recipe(**options: Any) -> Recipe:
    """Return the published recipe with that tool beside the others."""
    base = seg_research.recipe(**options)
    stops = (*base.stop_strings, "</length>")
    return replace(
        base,
        parse=parse,
        stop_strings=stops,
        notes=NOTES,
        build_tools=lambda *how: (*base.build_tools(*how), LengthTool()),
    )
