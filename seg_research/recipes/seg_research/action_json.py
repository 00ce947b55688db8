"""The JSON form of this recipe's actions, as records hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId
from seg_research.episode.action import Action, FaultKind, FormatFault
from seg_research.recipes.seg_research.actions import (
    Answer,
    ObjectRegion,
    Search,
    SearchKind,
    SelectKeyframe,
)


def action_to_json(action: Action) -> dict[str, Any]:
    """Return an action as JSON."""
    match action:
        case Search(kind, query):
            return {"kind": "search", "tool": str(kind), "query": query}
        case SelectKeyframe(frame_id):
            return {"kind": "keyframe", "frame_id": frame_id}
        case Answer(objects):
            return {"kind": "answer", "objects": [_region_to_json(region) for region in objects]}
        case FormatFault(kind, detail):
            return {"kind": "fault", "fault": str(kind), "detail": detail}
        case _:
            return {"kind": type(action).__name__.lower()}


def read_action(fields: Mapping[str, Any]) -> Action:
    """Return the action of a JSON form.

    Raises:
        UsageError: it is not the JSON form of an action of this recipe.
    """
    try:
        match fields["kind"]:
            case "search":
                return Search(SearchKind(fields["tool"]), fields["query"])
            case "keyframe":
                return SelectKeyframe(FrameId(fields["frame_id"]))
            case "answer":
                return Answer(tuple(_read_region(region) for region in fields["objects"]))
            case "fault":
                return FormatFault(FaultKind(fields["fault"]), fields["detail"])
            case kind:
                raise ValueError(f"unknown kind {kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"field 'action': not an action of seg_research ({error!r})") from None


def _region_to_json(region: ObjectRegion) -> dict[str, Any]:
    return {
        "box_norm1000": None if region.box is None else region.box.as_list(),
        "points_norm1000": [[p.x, p.y] for p in region.points],
        "negative_points_norm1000": [[p.x, p.y] for p in region.negative_points],
    }


def _read_region(fields: Mapping[str, Any]) -> ObjectRegion:
    box = fields.get("box_norm1000")
    return ObjectRegion(
        None if box is None else Norm1000Box(*box),
        tuple(Norm1000Point(*pair) for pair in fields.get("points_norm1000", ())),
        tuple(Norm1000Point(*pair) for pair in fields.get("negative_points_norm1000", ())),
    )
