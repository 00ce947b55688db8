"""What the pipeline and a mask back-end say to each other: a video and prompts in, masks of every
frame out. Axes: N objects, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

# Nothing is imported when a program runs: `--help` loads this module for the list of back-ends.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seg_research.core.geometry import PixelBox, PixelPoint
    from seg_research.core.masks import Mask
    from seg_research.core.video import FramePosition, FrameSource


@dataclass(frozen=True, slots=True)
class MaskPrompt:
    """Everything known of one object on one frame: a mask, or else a box, points, or both.

    Attributes:
        position: of that frame in the video.
        box: in pixels of the video.
        points: on the object.
        negative_points: not on the object.
        mask_HW: the object itself, in the video's size; where it is given, the rest is absent.
        group_id: number of the prediction that the object belongs to. Objects of one group may
            compete for pixels; objects of different groups never influence each other.
    """

    position: FramePosition
    box: PixelBox | None = None
    points: tuple[PixelPoint, ...] = ()
    negative_points: tuple[PixelPoint, ...] = ()
    mask_HW: Mask | None = field(default=None, compare=False)
    group_id: int = 0


class FrameMasks(NamedTuple):
    """Masks of objects on one frame."""

    position: FramePosition
    masks_NHW: NDArray[np.bool_]
    """In the video's size."""
    objects: tuple[int, ...] | None = None
    """Which objects, by the number of their prompt; None: all, in the order of the prompts."""


class Propagator(Protocol):
    """Turn prompts on one video into masks. One video at a time; several rounds of prompts and
    propagation on it.
    """

    def open(self, frames: FrameSource) -> None:
        """Take a video; nothing of an earlier one is kept."""
        ...

    def prompt(self, prompt: MaskPrompt) -> None:
        """Add one object for the next `propagate`; all that is known of it comes in this call."""
        ...

    def propagate(self) -> Iterator[FrameMasks]:
        """Follow the prompted objects in both directions and forget the prompts.

        Every object gets a mask on every frame exactly once, in any order of frames; objects that
        were prompted on the same frame come together.
        """
        ...

    def close(self) -> None:
        """Free the video and all memory held for it."""
        ...
