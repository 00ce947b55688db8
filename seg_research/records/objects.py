"""Objects of a line, with what hand-written and foreign lines get wrong named instead of dropped:
objects without a frame, geometry in unknown fields, coordinates in 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from seg_common.errors import UsageError
from seg_research.core.geometry import NORM, Norm1000Box, Norm1000Point
from seg_research.core.prediction import PredictedObject
from seg_research.core.rle import Rle
from seg_research.core.video import FrameId

Warn = Callable[[str], object]
"""Is told of what was read although it looks wrong."""

OBJECT_FIELDS = ("frame_id", "box_norm1000", "points_norm1000", "negative_points_norm1000", "mask")

_GEOMETRY = re.compile(
    r"(neg(ative)?_)?(b?box(es)?|points?|masks?|rles?|segmentations?|polygons?)"
    r"(_(\dd|xyxy|xywh|norm\w*|px|pixels))?",
    re.IGNORECASE,
)


class MaskFields(BaseModel):
    """A mask in COCO's compressed run lengths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int]
    counts: str


class ObjectFields(BaseModel):
    """An object as a line holds it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    frame_id: int | None = None
    box_norm1000: tuple[float, float, float, float] | None = None
    points_norm1000: tuple[tuple[float, float], ...] = ()
    negative_points_norm1000: tuple[tuple[float, float], ...] = ()
    mask: MaskFields | None = None


def read_object(
    fields: ObjectFields,
    where: str,
    keyframe_id: FrameId | None,
    *,
    written_by_hand: bool,
    warn: Warn,
) -> PredictedObject:
    """Return an object on its frame, which is the line's key frame where it names none itself.

    Args:
        fields: of the object.
        where: names it in messages.
        keyframe_id: of the line.
        written_by_hand: coordinates in 0..1 are a mistake of the writer, and not what a policy
            answered.
        warn: is told of what was read although it looks wrong.

    Raises:
        UsageError: it has no frame, no place, unknown geometry, or impossible coordinates.
    """
    refuse_geometry(fields.model_extra or {}, f"{where}: ")
    for name in fields.model_extra or {}:
        warn(f"{where}: field {name!r} is not used")
    frame_id = keyframe_id if fields.frame_id is None else FrameId(fields.frame_id)
    if frame_id is None or frame_id < 0:
        raise UsageError(
            f"{where}: no frame; say which one with frame_id in the object, "
            'or "keyframe": {"id": N} in the line'
        )
    try:
        found = PredictedObject(
            frame_id,
            None if fields.box_norm1000 is None else Norm1000Box(*fields.box_norm1000),
            _points(fields.points_norm1000),
            _points(fields.negative_points_norm1000),
            fields.mask and Rle(*fields.mask.size, fields.mask.counts),
        )
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    if found.box is None and not found.points and found.mask is None:
        raise UsageError(f"{where}: an object needs box_norm1000, points_norm1000 or mask")
    _check_scale(found, where, written_by_hand=written_by_hand, warn=warn)
    return found


def refuse_geometry(fields: Mapping[str, Any], where: str = "") -> None:
    """Refuse a place that no reader would look at; `where` begins the message.

    Raises:
        UsageError: a field is named like geometry.
    """
    for name in fields:
        if _GEOMETRY.fullmatch(name):
            raise UsageError(
                f"{where}unknown field {name!r}; an object has {', '.join(OBJECT_FIELDS)}, "
                f"coordinates in thousandths (0..{NORM}) of the frame"
            )


def _points(pairs: Iterable[tuple[float, float]]) -> tuple[Norm1000Point, ...]:
    return tuple(Norm1000Point(x, y) for x, y in pairs)


def _check_scale(found: PredictedObject, where: str, *, written_by_hand: bool, warn: Warn) -> None:
    coordinates = [] if found.box is None else found.box.as_list()
    for point in found.points:
        coordinates += (point.x, point.y)
    if not coordinates or max(coordinates) > 1:
        return
    message = (
        f"{where}: all coordinates are in 0..1; expected thousandths (0..{NORM}) of the frame's "
        "width and height"
    )
    if written_by_hand:
        raise UsageError(f"{message}: multiply by {NORM}")
    warn(f"{message}, and read as such")
