"""The honest baseline: the answered box, filled, on every frame. Whatever a back-end is worth, it
must beat this.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from post_segmentation.propagator import FrameMasks, MaskPrompt
from seg_research.core.geometry import ImageSize, PixelBox
from seg_research.core.video import FramePosition, FrameSource

POINT_RADIUS_PX = 4
"""Half side of the square that stands for a point where no box is known."""


class BoxFill:
    """Fill the prompted box on every frame; it does not follow anything."""

    def __init__(self) -> None:
        """Hold no video yet."""
        self._frames: FrameSource | None = None
        self._prompts: list[MaskPrompt] = []

    def open(self, frames: FrameSource) -> None:
        self._frames, self._prompts = frames, []

    def prompt(self, prompt: MaskPrompt) -> None:
        self._prompts.append(prompt)

    def propagate(self) -> Iterator[FrameMasks]:
        assert self._frames is not None, "propagate before open"
        masks_NHW = np.stack(
            [fill_box(prompt_box(prompt), self._frames.size) for prompt in self._prompts]
        )
        self._prompts = []
        for position in range(len(self._frames)):
            yield FrameMasks(FramePosition(position), masks_NHW)

    def close(self) -> None:
        self._frames, self._prompts = None, []


def prompt_box(prompt: MaskPrompt) -> PixelBox:
    """Return the prompt's box, or the small box around its points where it has none."""
    if prompt.box is not None:
        return prompt.box
    xs, ys = [point.x for point in prompt.points], [point.y for point in prompt.points]
    return PixelBox(
        min(xs) - POINT_RADIUS_PX,
        min(ys) - POINT_RADIUS_PX,
        max(xs) + POINT_RADIUS_PX,
        max(ys) + POINT_RADIUS_PX,
    )


def fill_box(box: PixelBox, size: ImageSize) -> NDArray[np.bool_]:
    """Return a mask (H, W) of every pixel the box touches."""
    mask_HW = np.zeros((size.height_px, size.width_px), np.bool_)
    mask_HW[max(floor(box.y1), 0) : ceil(box.y2) + 1, max(floor(box.x1), 0) : ceil(box.x2) + 1] = (
        True
    )
    return mask_HW
