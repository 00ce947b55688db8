"""What stays when nothing moves: the background of a video whose camera stands still. Axes: T
frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from post_segmentation.grabcut_mask import Bgr, difference_of
from seg_research.core.masks import Mask

NUM_SAMPLES = 21
"""Frames, evenly spread, whose median is the background; memory does not grow with the video."""
MIN_SAMPLES = 5
MIN_CHANGE = 22
"""Smallest channel difference, after smoothing, that noise and compression do not make."""
MIN_STILL = 0.7
"""Share of the pixels that must equal the background on a typical frame for the camera to count as
still.
"""


@dataclass(frozen=True, slots=True)
class StaticBackground:
    """The background. What rests on most frames is part of it: a changed pixel is not background,
    an unchanged one may be anything.
    """

    smooth: Bgr

    @classmethod
    def of(cls, images: Sequence[Bgr]) -> StaticBackground | None:
        """Take the median of frames; None where the camera moves or there are too few frames to
        tell.
        """
        if len(images) < MIN_SAMPLES:
            return None
        # Sorting bytes is several times faster than numpy.median, which turns them into floats.
        background = cls(_smooth(np.sort(np.stack(images), axis=0)[len(images) // 2]))
        still = float(np.median([1 - background.changed(image).mean() for image in images]))
        return background if still >= MIN_STILL else None

    def changed(self, image: Bgr) -> Mask:
        """Mark the pixels of a frame that are not background."""
        differs = difference_of(_smooth(image), self.smooth) > MIN_CHANGE
        solid = cv2.morphologyEx(
            differs.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
        )
        return solid.astype(np.bool_)


def _smooth(image: Bgr) -> Bgr:
    return cv2.GaussianBlur(image, (3, 3), 0).astype(np.uint8, copy=False)
