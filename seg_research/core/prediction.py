"""What an episode finally claims: regions on frames, or that the target is not in the video. One
type for recipes, rewards, records, mask prompts and viewers.
"""

from __future__ import annotations

from dataclasses import dataclass

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.rle import Rle
from seg_research.core.video import FrameId


@dataclass(frozen=True, slots=True)
class PredictedObject:
    """One object on one frame, located by a box, by points, or by a mask.

    Attributes:
        frame_id: the frame that the coordinates refer to.
        points: on the object.
        negative_points: not on the object.
        mask: given by the policy itself, at the size of the frame it saw; None for most policies.
    """

    frame_id: FrameId
    box: Norm1000Box | None = None
    points: tuple[Norm1000Point, ...] = ()
    negative_points: tuple[Norm1000Point, ...] = ()
    mask: Rle | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The claim of one episode.

    Attributes:
        objects: every object, on every frame on which the policy located it.
        answered: the policy gave a final answer, usable or not.
        absent: it claims that the target is not in the video.
        keyframe_id: the last frame that it chose, even where no answer followed.
    """

    objects: tuple[PredictedObject, ...] = ()
    answered: bool = False
    absent: bool = False
    keyframe_id: FrameId | None = None

    @property
    def is_complete(self) -> bool:
        """Tell whether there is something to judge: regions, or the claim that there are none."""
        return self.absent or bool(self.objects)
