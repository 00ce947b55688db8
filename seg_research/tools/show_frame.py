"""Show one of the offered frames in high resolution. Frames come from the disk of the host; they
never travel over HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import pydantic

from seg_common.errors import InfraError, ToolError, UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.image_cache import ImageCache
from seg_research.core.video import FrameId
from seg_research.data.sample import Sample
from seg_research.episode.action import Action
from seg_research.episode.texts import fill, fill_text, needs
from seg_research.episode.tool import ToolDescription
from seg_research.episode.transcript import ImageRef, Message, Observation, Outcome


@dataclass(frozen=True, slots=True)
class ShowFrame(Action):
    """Ask for one of the offered frames in high resolution."""

    frame_id: FrameId
    kind: ClassVar[str] = "keyframe"


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid"})
class ShowFrameTexts:
    """What the tool says to the policy.

    Attributes:
        shown: a frame.
        refused: a frame that was not offered was asked for.
    """

    shown: Annotated[str, needs("image", may=("frame_id",))]
    refused: Annotated[str, needs("offered", may=("frame_id",))]


@dataclass(frozen=True, slots=True)
class ShowFrameTool:
    """Show a chosen frame, squashed to `side_px` × `side_px` as the benchmark does; coordinates are
    relative, so answers stay right.
    """

    texts: ShowFrameTexts
    side_px: int = 864
    name: str = "keyframe"
    images: ImageCache = field(default_factory=ImageCache, repr=False, compare=False)

    def describe(self) -> ToolDescription:
        """Tell how a viewer calls it; a recipe's prompt says how a frame is chosen."""
        return ToolDescription((), label="Key frame")

    def accepts(self, action: Action) -> bool:
        """Accept a choice of frame."""
        return isinstance(action, ShowFrame)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Read the frame and show it.

        Raises:
            ToolError: the id was not offered.
            InfraError: the file cannot be read; the data changed under the run.
        """
        assert isinstance(action, ShowFrame)
        frame = next((f for f in sample.offered if f.frame_id == action.frame_id), None)
        if frame is None:
            offered = ", ".join(str(f.frame_id) for f in sample.offered)
            raise ToolError(
                fill_text(self.texts.refused, frame_id=str(action.frame_id), offered=offered)
            )
        size = ImageSize(self.side_px, self.side_px)
        try:
            image = await asyncio.to_thread(self.images.read, frame.path, size)
        except UsageError as error:
            raise InfraError(f"key frame of sample {sample.sample_id}: {error}") from error
        shown = ImageRef(image, str(frame.path), f"frame {frame.frame_id}")
        parts = fill(self.texts.shown, frame_id=str(frame.frame_id), image=shown)
        return Observation(Message("user", parts), self.name, Outcome.OK, f"frame {frame.frame_id}")
