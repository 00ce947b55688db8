"""Targets as JSON, in prepared rows and in records.

Version 2 is `{"targets": [{"id": …, "frames": {"<frame id>": {…}, …}}, …]}`. Version 1 knows one
target and is its `frames` alone. A target on a frame is `bbox_2d`, `point_2d`, `area`,
`max_conn_area` and, where it is known, `mask`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from seg_common.errors import UsageError
from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import NORM, ImageSize, Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId, frame_id_of
from seg_research.data.sample import ONLY_TARGET_ID, Target, TargetOnFrame

Scales: TypeAlias = Mapping[FrameId, ImageSize]
"""Width and height of every frame of a sample, in the unit that its coordinates count."""

THOUSANDTHS = ImageSize(NORM, NORM)
"""The scale of coordinates that count thousandths."""


class _Mask(BaseModel):
    size: tuple[PositiveInt, PositiveInt]
    origin: tuple[NonNegativeInt, NonNegativeInt]
    stride: PositiveInt
    png: str


class _FrameFields(BaseModel):
    bbox_2d: tuple[float, float, float, float]
    point_2d: tuple[float, float]
    area: float
    max_conn_area: float
    mask: _Mask | None = None


class _TargetFields(BaseModel):
    id: str
    frames: dict[str, _FrameFields]


class _TargetsFields(BaseModel):
    targets: list[_TargetFields]


def targets_to_json(targets: Iterable[Target]) -> dict[str, Any]:
    """Return targets in version 2, in thousandths."""
    return {
        "targets": [
            {"id": target.target_id, "frames": frames_to_json(target)} for target in targets
        ]
    }


def recorded_truth_to_json(targets: Sequence[Target]) -> dict[str, Any]:
    """Return targets as records have them, in thousandths: in version 1, which the programs of this
    field read, where there is at most one.
    """
    if len(targets) > 1:
        return targets_to_json(targets)
    return frames_to_json(targets[0]) if targets else {}


def frames_to_json(target: Target) -> dict[str, Any]:
    """Return one target's frames, which is version 1, in thousandths."""
    return {
        str(frame_id): {
            "bbox_2d": found.box.as_list(),
            "point_2d": [found.point.x, found.point.y],
            "area": found.area,
            "max_conn_area": found.max_conn_area,
            "mask": mask_to_json(found.mask),
        }
        for frame_id, found in target.frames.items()
    }


def read_targets(text: str, scales: Scales, where: str) -> tuple[Target, ...]:
    """Read targets of either version; in version 1 there is one, perhaps on no frame.

    Raises:
        UsageError: the text is something else, names a frame that the sample does not have, a
            target twice, or numbers out of range; it begins with `where`.
    """
    targets = [
        Target(target.id, _read_frames(target.frames, scales, where))
        for target in _parse(text, where).targets
    ]
    ids = [target.target_id for target in targets]
    if len(set(ids)) < len(ids):
        raise UsageError(f"{where}: ground truth with target ids {ids}; they must differ")
    return tuple(targets)


def _parse(text: str, where: str) -> _TargetsFields:
    try:
        found: object = json.loads(text)
        if not isinstance(found, dict):
            raise UsageError(f"{where}: ground truth is not a JSON object keyed by frame id")
        fields = cast("dict[str, object]", found)
        if "targets" in fields:
            return _TargetsFields.model_validate(fields)
        frames = {name: _FrameFields.model_validate(frame) for name, frame in fields.items()}
        return _TargetsFields(targets=[_TargetFields(id=ONLY_TARGET_ID, frames=frames)])
    except ValidationError as error:
        raise UsageError(f"{where}: ground truth: {first_fault(error)}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where}: ground truth is not a JSON object keyed by frame id ({error})"
        ) from None


def _read_frames(
    frames: Mapping[str, _FrameFields], scales: Scales, where: str
) -> dict[FrameId, TargetOnFrame]:
    found: dict[FrameId, TargetOnFrame] = {}
    for name, frame in frames.items():
        frame_id = frame_id_of(name)
        if frame_id is None or frame_id not in scales:
            raise UsageError(
                f"{where}: ground truth for frame {name!r}, but the row's frames are "
                f"{sorted(scales)}"
            )
        found[frame_id] = _read_frame(frame, scales[frame_id], f"{where} frame {name}")
    return found


def _read_frame(frame: _FrameFields, scale: ImageSize, where: str) -> TargetOnFrame:
    per_x, per_y = NORM / scale.width_px, NORM / scale.height_px
    x1, y1, x2, y2 = frame.bbox_2d
    x, y = frame.point_2d
    try:
        box = Norm1000Box(x1 * per_x, y1 * per_y, x2 * per_x, y2 * per_y)
        point = Norm1000Point(x * per_x, y * per_y)
    except ValueError as error:
        raise UsageError(
            f"{where}: bbox_2d={[*frame.bbox_2d]}, point_2d={[*frame.point_2d]}: {error}"
        ) from None
    for name, share in (("area", frame.area), ("max_conn_area", frame.max_conn_area)):
        if not 0 < share <= 1:
            raise UsageError(
                f"{where}: {name}={share} is outside 0..1; it is a share of the target's largest "
                "over the frames of the row"
            )
    mask = None if frame.mask is None else _mask(frame.mask)
    return TargetOnFrame(box, point, frame.area, frame.max_conn_area, mask)


def mask_to_json(mask: CoarseMask | None) -> dict[str, Any] | None:
    """Return a target's mask as a ground truth's JSON has it."""
    if mask is None:
        return None
    return {
        "size": list(mask.size),
        "origin": [mask.left_px, mask.top_px],
        "stride": mask.stride_px,
        "png": mask.png,
    }


def mask_from_json(fields: object, where: str) -> CoarseMask:
    """Read what `mask_to_json` wrote; whether the samples are readable shows when they are used.

    Raises:
        UsageError: a field is missing or malformed.
    """
    try:
        return _mask(_Mask.model_validate(fields))
    except ValidationError as error:
        raise UsageError(f"{where}: mask: {first_fault(error)}") from None


def _mask(mask: _Mask) -> CoarseMask:
    return CoarseMask(ImageSize(*mask.size), *mask.origin, mask.stride, mask.png)


def first_fault(error: ValidationError) -> str:
    """Tell the first thing that pydantic found wrong, in one line that begins with its place."""
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"column {place}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
