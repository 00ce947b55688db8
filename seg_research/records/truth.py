"""The ground truth of a line: JSON text `gts`, the annotated `steps`, and whether the target is
`absent`. Of one target `gts` holds its frames, the form that the programs of this field read; of
several `{"targets": [{"id", "frames"}]}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId, frame_id_of
from seg_research.data.sample import ONLY_TARGET_ID, GroundTruth, Target, TargetOnFrame
from seg_research.data.truth_json import mask_from_json, recorded_truth_to_json

Frames = dict[str, dict[str, Any]]
"""A target as a line holds it, by frame id as written."""


def truth_to_json(truth: GroundTruth | None) -> dict[str, Any]:
    """Return the fields that hold a ground truth in a line; `gts` is null where it is unknown."""
    if truth is None:
        return {"gts": None, "steps": [], "absent": False}
    targets = json.dumps(recorded_truth_to_json(truth.targets))
    return {"gts": targets, "steps": list(truth.steps), "absent": truth.absent}


def truth_from_json(fields: Mapping[str, Any]) -> GroundTruth | None:
    """Return the ground truth of a line; None where it has none.

    Raises:
        UsageError: a field is malformed; names it.
    """
    recorded, steps = read_gts(fields), read_steps(fields)
    if recorded is None:
        return None
    targets = tuple(Target(name, usable_frames(frames)) for name, frames in recorded.items())
    absent = fields.get("absent") is True
    is_seen = any(target.frames for target in targets)
    return GroundTruth(targets if is_seen or not absent else (), steps, absent)


def read_gts(fields: Mapping[str, Any]) -> dict[str, Frames] | None:
    """Return the frames of each target by its id, as the field `gts` holds them; None where there
    is none.

    Raises:
        UsageError: it is malformed.
    """
    gts = fields.get("gts")
    if gts is None:
        return None
    try:
        plain: object = json.loads(gts) if isinstance(gts, str) else gts
    except (ValueError, RecursionError) as error:
        raise UsageError(f"field 'gts': not valid JSON ({error})") from None
    if not isinstance(plain, dict) or "targets" not in plain:
        return {ONLY_TARGET_ID: _read_frames(cast("object", plain))}
    found = cast("dict[str, Any]", plain)
    try:
        return {str(one["id"]): _read_frames(one["frames"]) for one in found["targets"]}
    except (KeyError, TypeError) as error:
        raise UsageError(f"field 'gts': expected targets with id and frames ({error!r})") from None


def read_steps(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the annotated steps of a line.

    Raises:
        UsageError: the field is malformed.
    """
    steps = fields.get("steps") or ()
    if not isinstance(steps, list | tuple) or not all(
        isinstance(step, str) for step in cast("Sequence[object]", steps)
    ):
        raise UsageError("field 'steps': expected a list of texts")
    return tuple(cast("Sequence[str]", steps))


def usable_frames(frames: Frames) -> dict[FrameId, TargetOnFrame]:
    """Return those frames of a target that our types take; a target that is one pixel thin has no
    box of ours.

    Raises:
        UsageError: a mask is unreadable.
    """
    usable: dict[FrameId, TargetOnFrame] = {}
    for name, fields in frames.items():
        frame_id, found = frame_id_of(name), _target_on_frame(fields)
        if frame_id is not None and found is not None:
            usable[frame_id] = found
    return usable


def _read_frames(plain: object) -> Frames:
    frames = cast("dict[str, object]", plain) if isinstance(plain, dict) else {}
    if not isinstance(plain, dict) or not all(isinstance(one, dict) for one in frames.values()):
        raise UsageError(
            "field 'gts': expected "
            '{"<frame id>": {"bbox_2d": …, "point_2d": …, "max_conn_area": …}, …}'
        )
    recorded = cast("Frames", plain)
    if not all(_is_number(frame.get("max_conn_area", 0.0)) for frame in recorded.values()):
        raise UsageError("field 'gts': expected a number as max_conn_area")
    return recorded


def _target_on_frame(fields: Mapping[str, Any]) -> TargetOnFrame | None:
    mask = None if fields.get("mask") is None else mask_from_json(fields["mask"], "field 'gts'")
    if mask is not None:
        mask.samples()
    try:
        box, point = Norm1000Box(*fields["bbox_2d"]), Norm1000Point(*fields["point_2d"])
        area = fields.get("max_conn_area", 0.0)
        if not 0 <= area <= 1:
            return None
        return TargetOnFrame(box, point, fields.get("area", area), area, mask)
    except (KeyError, TypeError, ValueError):
        return None


def _is_number(value: object) -> bool:
    # A comparison, because math.isfinite cannot take an integer that no float holds.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
