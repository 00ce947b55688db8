"""A target's mask in a few hundred characters: enough to tell how deep inside it a point lies.

Axes: H, W grid samples; N points; B samples of the background.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize, Norm1000Point, point_to_pixels
from seg_research.core.masks import Mask, mask_box

GRID_SIDE = 96
"""Samples along the longer side of the target, at most: three times finer than a point can matter.
"""


@dataclass(frozen=True, slots=True)
class CoarseMask:
    """Every `stride_px`-th pixel of a mask, cut out around its target with a margin of background
    where the frame continues.

    Attributes:
        size: of the whole frame.
        left_px, top_px: position of the first sample.
        png: the samples as a base64 PNG of one bit a pixel.
    """

    size: ImageSize
    left_px: int
    top_px: int
    stride_px: int
    png: str

    @classmethod
    def of(cls, mask_HW: Mask) -> CoarseMask | None:
        """Sample a mask; None if it is empty."""
        box = mask_box(mask_HW)
        if box is None:
            return None
        height, width = mask_HW.shape
        x1, y1, x2, y2 = int(box.x1), int(box.y1), int(box.x2), int(box.y2)
        stride = -(-max(x2 - x1 + 1, y2 - y1 + 1) // GRID_SIDE)
        # One step around the box always meets the background pixel row or column that lies next to
        # it, as far as the frame goes.
        left, top = max(0, x1 - stride), max(0, y1 - stride)
        samples_HW = mask_HW[top : y2 + stride + 1 : stride, left : x2 + stride + 1 : stride]
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(samples_HW)).save(buffer, "PNG")
        return cls(
            ImageSize(width, height),
            left,
            top,
            stride,
            base64.b64encode(buffer.getvalue()).decode("ascii"),
        )

    def samples(self) -> Mask:
        """Return the samples, boolean (H, W).

        Raises:
            UsageError: they are not readable.
        """
        try:
            with Image.open(
                io.BytesIO(base64.b64decode(self.png, validate=True)), formats=("PNG",)
            ) as image:
                samples_HW = np.asarray(image.convert("1"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise UsageError(
                f"the mask in a ground truth is not readable ({error}); prepare the data again"
            ) from None
        return samples_HW

    def depths_px(self, points: Sequence[Norm1000Point]) -> list[float]:
        """Measure how far from the nearest background sample the points lie; 0 outside the target.

        What lies beyond the frame is not background, unless the target fills the frame.
        """
        samples_HW = self.samples()
        background_B2 = np.argwhere(~samples_HW).astype(np.float64)
        return [self._depth_px(samples_HW, background_B2, point) for point in points]

    def _depth_px(
        self, samples_HW: Mask, background_B2: NDArray[np.float64], point: Norm1000Point
    ) -> float:
        pixel = point_to_pixels(point, self.size)
        row, column = (
            round((pixel.y - self.top_px) / self.stride_px),
            round((pixel.x - self.left_px) / self.stride_px),
        )
        height, width = samples_HW.shape
        if not (0 <= row < height and 0 <= column < width and samples_HW[row, column]):
            return 0.0
        if not len(background_B2):
            return float(self.stride_px * min(row + 1, height - row, column + 1, width - column))
        offsets_B2 = background_B2 - (row, column)
        return float(self.stride_px * np.sqrt((offsets_B2**2).sum(axis=1).min()))
