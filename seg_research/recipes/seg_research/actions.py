"""Typed actions of the policy. Coordinates are thousandths of the key frame; frame ids are the
numbers the prompt showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId
from seg_research.episode.action import Action


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

    @property
    def is_final(self) -> bool:
        """An answer ends the episode."""
        return True
