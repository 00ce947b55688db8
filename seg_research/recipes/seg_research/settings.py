"""Settings of this recipe's episodes."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import pydantic

from seg_research.episode.texts import needs
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.settings import EpisodeSettings
from seg_research.tools.search import SearchTexts
from seg_research.tools.show_frame import ShowFrameTexts


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class SegResearchSettings(EpisodeSettings):
    """Adds to what every episode has:

    Attributes:
        brief_prompt: leave the instructions out of the system message, for policies that learned
            the format by training alone.
        rewards: what is rewarded; the published numbers by default.
    """

    recipe: str = "seg_research"
    brief_prompt: bool = False
    rewards: RewardSettings = field(default_factory=RewardSettings)


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid"})
class SegResearchTexts:
    """What this recipe says to a policy; texts.yaml explains each."""

    system: Annotated[str, needs(may=("tools", "names"))]
    system_without_search: Annotated[str, needs()]
    brief_system: Annotated[str, needs(may=("tools", "names"))]
    brief_system_without_search: Annotated[str, needs()]
    frame: Annotated[str, needs("image", may=("frame_id",))]
    user: Annotated[str, needs("frames", "question")]
    fault: Annotated[str, needs(may=("detail",))]
    search: SearchTexts
    show_frame: ShowFrameTexts
