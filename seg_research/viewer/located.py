"""The frames on which a policy located objects: boxes, points and masks of each object, and what is
right there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seg_common.errors import UsageError
from seg_research.core.geometry import (
    ImageSize,
    Norm1000Point,
    PixelBox,
    PixelPoint,
    box_to_pixels,
    point_to_pixels,
)
from seg_research.core.masks import Mask
from seg_research.core.prediction import PredictedObject, Prediction
from seg_research.core.video import FrameId, FramePosition, FrameSource, position_of
from seg_research.viewer.thumbnails import Thumbnail, embed, overlay_masks
from seg_research.viewer.truth import TruthView

FRAME_WIDTH_PX = 520
MAX_FRAMES = 4


@dataclass(frozen=True, slots=True)
class ObjectView:
    """One object on one frame, in pixels of the original frame.

    Attributes:
        number: of the object in the prediction, from 1; 0 where it is the only one.
    """

    number: int
    box: PixelBox | None
    points: tuple[PixelPoint, ...]
    negative_points: tuple[PixelPoint, ...]

    @property
    def anchor(self) -> PixelPoint | None:
        """Where its number is written; None where it is a mask alone."""
        if self.box is not None:
            return PixelPoint(self.box.x1, self.box.y1)
        return self.points[0] if self.points else None


@dataclass(frozen=True, slots=True)
class LocatedFrame:
    """A frame with what was answered and what was right.

    Attributes:
        size: of the original frame.
        is_keyframe: whether it is the one that the policy chose.
        has_masks: whether masks of the policy's own are drawn on the image.
    """

    image: Thumbnail
    frame_id: FrameId
    size: ImageSize
    is_keyframe: bool
    objects: tuple[ObjectView, ...]
    has_masks: bool
    truth_boxes: tuple[PixelBox, ...]

    @property
    def has_place(self) -> bool:
        """Whether an object has a box or a mask here."""
        return self.has_masks or any(found.box is not None for found in self.objects)


def view_located(
    prediction: Prediction, video: FrameSource, truth: TruthView, notes: list[str]
) -> tuple[LocatedFrame, ...]:
    """Draw the key frame and every frame with objects, a few at most; what is left out is noted."""
    frame_ids = [] if prediction.keyframe_id is None else [prediction.keyframe_id]
    frame_ids = list(dict.fromkeys([*frame_ids, *(one.frame_id for one in prediction.objects)]))
    if len(frame_ids) > MAX_FRAMES:
        notes.append(f"{len(frame_ids) - MAX_FRAMES} more frames with objects are not shown")
    views: list[LocatedFrame] = []
    for frame_id in frame_ids[:MAX_FRAMES]:
        position = position_of(frame_id, video.names)
        if position is None:
            notes.append(f"frame {frame_id}, which the policy chose, is not in the video")
        else:
            views.append(_view_frame(prediction, frame_id, position, video, truth, notes))
    return tuple(views)


def _view_frame(
    prediction: Prediction,
    frame_id: FrameId,
    position: FramePosition,
    video: FrameSource,
    truth: TruthView,
    notes: list[str],
) -> LocatedFrame:
    image = video.read(position)
    size = ImageSize(*image.size)
    numbered = [
        (number, found)
        for number, found in enumerate(prediction.objects, 1)
        if found.frame_id == frame_id
    ]
    mask_HW = _union([found for _, found in numbered], notes)
    if mask_HW is not None:
        image = overlay_masks(image, mask_HW, None, FRAME_WIDTH_PX)
    is_only = len(prediction.objects) == 1
    return LocatedFrame(
        embed(image, FRAME_WIDTH_PX, f"frame {frame_id}", quality=80),
        frame_id,
        size,
        frame_id == prediction.keyframe_id,
        tuple(_view_object(0 if is_only else number, found, size) for number, found in numbered),
        mask_HW is not None,
        truth.boxes(video.names[position], size),
    )


def _view_object(number: int, found: PredictedObject, size: ImageSize) -> ObjectView:
    return ObjectView(
        number,
        None if found.box is None else box_to_pixels(found.box, size),
        _in_pixels(found.points, size),
        _in_pixels(found.negative_points, size),
    )


def _in_pixels(points: Iterable[Norm1000Point], size: ImageSize) -> tuple[PixelPoint, ...]:
    return tuple(point_to_pixels(point, size) for point in points)


def _union(objects: Sequence[PredictedObject], notes: list[str]) -> Mask | None:
    """Return the masks of objects as one; None where there are none of the first one's size."""
    union_HW: Mask | None = None
    for found in objects:
        if found.mask is None:
            continue
        try:
            mask_HW = found.mask.decode()
        except UsageError as error:
            notes.append(f"a mask of the policy cannot be drawn: {error}")
            continue
        if union_HW is None:
            union_HW = mask_HW
        elif union_HW.shape == mask_HW.shape:
            union_HW = np.logical_or(union_HW, mask_HW)
    return union_HW
