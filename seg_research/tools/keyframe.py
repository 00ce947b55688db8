"""Show one of the offered frames in high resolution. Frames come from the disk of the host; they
never travel over HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from seg_common.errors import InfraError, ToolError, UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import shown_image
from seg_research.data.sample import Sample
from seg_research.episode.action import Action
from seg_research.episode.transcript import ImageRef, Message, Observation, Outcome, Text
from seg_research.recipes.seg_research.actions import SelectKeyframe


@dataclass(frozen=True, slots=True)
class KeyframeTool:
    """Show a chosen frame, squashed to `side_px` × `side_px` as the benchmark does; coordinates are
    relative, so answers stay right.
    """

    side_px: int = 864
    name: str = "keyframe"

    def accepts(self, action: Action) -> bool:
        """Accept a choice of key frame."""
        return isinstance(action, SelectKeyframe)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Read the frame and show it.

        Raises:
            ToolError: the id was not offered.
            InfraError: the file cannot be read; the data changed under the run.
        """
        assert isinstance(action, SelectKeyframe)
        frame = next((f for f in sample.offered if f.frame_id == action.frame_id), None)
        if frame is None:
            offered = ", ".join(str(f.frame_id) for f in sample.offered)
            raise ToolError(
                f"Frame {action.frame_id} was not among those shown. Choose one of: {offered}."
            )
        try:
            picture = await asyncio.to_thread(
                shown_image, frame.path, ImageSize(self.side_px, self.side_px)
            )
        except UsageError as error:
            raise InfraError(f"key frame of sample {sample.sample_id}: {error}") from error
        parts = (
            Text(f"Frame {frame.frame_id} in high resolution: "),
            ImageRef(picture, str(frame.path), f"frame {frame.frame_id}"),
        )
        return Observation(Message("user", parts), self.name, Outcome.OK, f"frame {frame.frame_id}")
