"""Typed actions of the policy. Coordinates are thousandths of the key frame; frame ids are the numbers the prompt showed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.transcript import Action
from seg_research.core.video import FrameId


class SearchKind(StrEnum):
    """Which collection a search looks in; the values are the tool names the prompt shows."""

    TEXT = "text_search"
    IMAGE = "image_search"


@dataclass(frozen=True, slots=True)
class Search(Action):
    """Look something up."""

    kind: SearchKind
    query: str


@dataclass(frozen=True, slots=True)
class SelectKeyframe(Action):
    """Ask for one of the shown frames in high resolution; the answer's coordinates refer to it."""

    frame_id: FrameId


@dataclass(frozen=True, slots=True)
class ObjectRegion:
    """One target on the key frame.

    Attributes:
        box: tight box, or None where only points were given.
        points: inside the target.
        negative_points: not on the target.
    """

    box: Norm1000Box | None
    points: tuple[Norm1000Point, ...] = ()
    negative_points: tuple[Norm1000Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer(Action):
    """The final regions, one per object; none says that the target is not in the video."""

    objects: tuple[ObjectRegion, ...]


class FaultKind(StrEnum):
    """What was wrong with a turn."""

    NO_ACTION = "no_action"
    SEVERAL_ACTIONS = "several_actions"
    UNCLOSED_TAG = "unclosed_tag"
    BAD_NESTING = "bad_nesting"
    BAD_JSON = "bad_json"
    BAD_FIELDS = "bad_fields"
    UNKNOWN_TOOL = "unknown_tool"
    EMPTY_QUERY = "empty_query"
    BAD_FRAME = "bad_frame"
    BAD_BOX = "bad_box"
    BAD_POINT = "bad_point"
    TOO_LONG = "too_long"


@dataclass(frozen=True, slots=True)
class FormatFault(Action):
    """A turn that is not a valid action. `detail` is fixed text plus at most a short excerpt, safe to show to the policy."""

    kind: FaultKind
    detail: str


@dataclass(frozen=True, slots=True)
class ParsedTurn:
    """One model turn, read."""

    action: Action
    thinking: str | None = None
    """Content of the thinking block that precedes the action, stripped; None without one."""
