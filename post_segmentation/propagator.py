"""What every mask back-end can do: take a video, take prompts, give masks of every frame. Axes: N objects, H rows, W columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.video import FramePosition, FrameSource


class Backend(StrEnum):
    """The back-ends, by the names the command line knows."""

    GRABCUT = "grabcut"
    BOX = "box"


@dataclass(frozen=True, slots=True)
class MaskPrompt:
    """Everything known of one object: box, inside points and outside points, all on one frame.

    Attributes:
        position: of that frame in the video.
        box: in pixels of the video; None where only points are known.
    """

    position: FramePosition
    box: PixelBox | None
    points: tuple[PixelPoint, ...] = ()
    negative_points: tuple[PixelPoint, ...] = ()


class FrameMasks(NamedTuple):
    """Masks of every prompted object on one frame."""

    position: FramePosition
    masks_NHW: NDArray[np.bool_]
    """In the order of the prompts, in the video's size."""


class Propagator(Protocol):
    """Turn prompts on one video into masks. One video at a time; several rounds of prompts and propagation on it."""

    def open(self, frames: FrameSource) -> None:
        """Take a video; nothing of an earlier one is kept."""
        ...

    def prompt(self, prompt: MaskPrompt) -> None:
        """Add one object for the next `propagate`; box and all points of an object go in this one call."""
        ...

    def propagate(self) -> Iterator[FrameMasks]:
        """Follow the prompted objects in both directions; every frame exactly once, in any order. Forgets the prompts."""
        ...

    def close(self) -> None:
        """Free the video and all memory held for it."""
        ...


def make_propagator(backend: Backend) -> Propagator:
    """Make a back-end; only the chosen one's libraries are imported."""
    return _MAKERS[backend]()


def _make_box() -> Propagator:
    from post_segmentation.box import BoxFill

    return BoxFill()


def _make_grabcut() -> Propagator:
    from post_segmentation.grabcut import GrabCutFlow

    return GrabCutFlow()


_MAKERS: dict[Backend, Callable[[], Propagator]] = {Backend.BOX: _make_box, Backend.GRABCUT: _make_grabcut}
