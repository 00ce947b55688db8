"""The baseline: what was answered, unchanged on every frame. A back-end that follows anything must
beat this.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np

from post_segmentation.propagator import FrameMasks, MaskPrompt
from seg_research.core.geometry import ImageSize, PixelBox
from seg_research.core.masks import Mask
from seg_research.core.video import FramePosition, FrameSource

POINT_RADIUS_PX = 4
"""Half side of the square that stands for a point where no box is known."""


class BoxPropagator:
    """Fill the prompted box, or repeat the given mask, on every frame."""

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
        size = self._frames.size
        masks_NHW = np.stack([_key_mask(prompt, size) for prompt in self._prompts])
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


def fill_box(box: PixelBox, size: ImageSize) -> Mask:
    """Return a mask (H, W) of every pixel the box touches."""
    mask_HW = np.zeros((size.height_px, size.width_px), np.bool_)
    rows = slice(max(floor(box.y1), 0), ceil(box.y2) + 1)
    columns = slice(max(floor(box.x1), 0), ceil(box.x2) + 1)
    mask_HW[rows, columns] = True
    return mask_HW


def _key_mask(prompt: MaskPrompt, size: ImageSize) -> Mask:
    return prompt.mask_HW if prompt.mask_HW is not None else fill_box(prompt_box(prompt), size)
