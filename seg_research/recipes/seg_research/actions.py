"""The actions of this recipe: it searches, asks for a key frame, and answers. Coordinates are
thousandths of the key frame; frame ids are the numbers the prompt showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.episode.action import Action
from seg_research.tools.search import Search, SearchKind
from seg_research.tools.show_frame import ShowFrame

__all__ = ["Answer", "FaultKind", "ObjectRegion", "Search", "SearchKind", "ShowFrame"]


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

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as records store them."""
        return {
            "box_norm1000": None if self.box is None else self.box.as_list(),
            "points_norm1000": [[p.x, p.y] for p in self.points],
            "negative_points_norm1000": [[p.x, p.y] for p in self.negative_points],
        }


@dataclass(frozen=True, slots=True)
class Answer(Action):
    """The final regions, one per object; none says that the target is not in the video."""

    objects: tuple[ObjectRegion, ...]
    kind: ClassVar[str] = "answer"

    @property
    def is_final(self) -> bool:
        """An answer ends the episode."""
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, as records store it."""
        return {"kind": self.kind, "objects": [region.to_json() for region in self.objects]}
