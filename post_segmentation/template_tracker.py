"""The object as it looked on the key frame, found again by turning, shifting and scaling it. Axes:
H rows, W columns, N points.

Comparing with the key frame, never with the frame before, means that nothing drifts; it works while
the object keeps its shape, and says itself (`Match.agreement`) when it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from post_segmentation.grabcut_mask import Bgr, Window, difference_of, window_around
from seg_research.core.geometry import PixelBox
from seg_research.core.masks import Mask, mask_box

Similarity: TypeAlias = NDArray[np.float64]
"""Similarity (2, 3) that takes key-frame pixels to pixels of another frame."""

SAME_COLOUR = 28
"""Largest channel difference at which two smoothed pixels show the same thing."""
MIN_VISIBLE_PX = 20
MIN_FLOW_SIDE_PX = 16
"""OpenCV's flow refuses smaller images."""
MAX_STEP_SCALE = 1.4
MAX_POINTS = 300
SEARCH_ANGLES_RAD = (-0.3, 0.0, 0.3)
SEARCH_SCALES = (0.8, 1.0, 1.25)
SEARCH_MAX_RMS = 50.0
"""Candidates of the coarse search whose pixels differ more are not looked at."""
SEARCH_MIN_INSIDE = 0.12
"""Share of the object that must lie in the image for the coarse search to find it."""


class Match(NamedTuple):
    """A placed template compared with a frame.

    Attributes:
        placed_HW: where the object would be, the part inside the image.
        agreeing_HW: those of its pixels that look as they did on the key frame.
        agreement: their share, in [0, 1]; 0 where hardly anything is inside the image.
    """

    pose: Similarity
    placed_HW: Mask
    agreeing_HW: Mask
    agreement: float


def dense_flow(source_HW: NDArray[np.uint8], target_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return for every source pixel the (dx, dy) to its place in the target, (H, W, 2)."""
    height_px, width_px = source_HW.shape
    missing = max(0, MIN_FLOW_SIDE_PX - height_px), max(0, MIN_FLOW_SIDE_PX - width_px)
    source_HW, target_HW = (
        np.pad(image_HW, [(0, m) for m in missing], mode="edge")
        for image_HW in (source_HW, target_HW)
    )
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    empty = cast("NDArray[np.float32]", None)
    flow_HW2 = estimator.calc(
        np.ascontiguousarray(source_HW), np.ascontiguousarray(target_HW), empty
    )
    return flow_HW2.astype(np.float32, copy=False)[:height_px, :width_px]


def motion_of(mask_HW: Mask, flow_HW2: NDArray[np.float32], window: Window) -> Similarity | None:
    """Fit one similarity to the flow of a mask's pixels, outliers left out; None where they do not
    move as one.

    Args:
        mask_HW: the object, in the window.
        flow_HW2: of the window's pixels.
        window: where both lie in the frame.
    """
    rows, columns = np.nonzero(mask_HW)
    if len(rows) < 8:
        return None
    picked = np.linspace(0, len(rows) - 1, min(MAX_POINTS, len(rows))).astype(np.intp)
    rows, columns = rows[picked], columns[picked]
    source_N2 = np.stack([columns, rows], axis=1).astype(np.float32) + window.origin
    cv2.setRNGSeed(0)
    pose, _ = cv2.estimateAffinePartial2D(
        source_N2, source_N2 + flow_HW2[rows, columns], ransacReprojThreshold=1.0, maxIters=200
    )
    # OpenCV's stubs do not say that there may be no solution.
    solved = cast("Similarity | None", pose)
    return (
        solved
        if solved is not None and 1 / MAX_STEP_SCALE < _scale(solved) < MAX_STEP_SCALE
        else None
    )


def chain(first: Similarity, then: Similarity) -> Similarity:
    """Return the pose that applies one pose and then another."""
    return (_square(then) @ _square(first))[:2]


def moved(pose: Similarity, offset: NDArray[np.floating]) -> Similarity:
    """Return the pose shifted by (dx, dy)."""
    shifted = pose.copy()
    shifted[:, 2] += offset
    return shifted


@dataclass(frozen=True, slots=True)
class Template:
    """The object's pixels on the key frame."""

    image: Bgr
    smooth: Bgr
    mask_HW: Mask
    box: PixelBox
    area_px: int

    @classmethod
    def of(cls, image: Bgr, mask_HW: Mask) -> Template | None:
        """Take the object from its key frame; None for an empty mask."""
        box = mask_box(mask_HW)
        if box is None:
            return None
        return cls(image, _smooth(image), mask_HW, box, int(np.count_nonzero(mask_HW)))

    def match(self, pose: Similarity, image: Bgr) -> Match:
        """Compare the template at a pose with a frame."""
        placed_HW, agreeing_HW = (
            np.zeros(image.shape[:2], np.bool_),
            np.zeros(image.shape[:2], np.bool_),
        )
        window = self._window(pose, image.shape, margin_px=2)
        local = moved(pose, -window.origin)
        placed = self._warp_mask(local, window)
        num_placed = int(np.count_nonzero(placed))
        if num_placed < MIN_VISIBLE_PX:
            return Match(pose, placed_HW, agreeing_HW, 0.0)
        difference = difference_of(_warp(self.smooth, local, window), _smooth(image[window]))
        agreeing = placed & (difference < SAME_COLOUR)
        placed_HW[window], agreeing_HW[window] = placed, agreeing
        return Match(pose, placed_HW, agreeing_HW, int(np.count_nonzero(agreeing)) / num_placed)

    def register(
        self, pose: Similarity, image: Bgr, grey: NDArray[np.uint8], num_rounds: int = 2
    ) -> Match:
        """Improve a pose by the flow from the placed template to the frame, as long as that makes
        them agree more.
        """
        best = self.match(pose, image)
        for _ in range(num_rounds):
            if not best.placed_HW.any():
                break
            window = self._window(best.pose, image.shape, margin_px=16)
            local = moved(best.pose, -window.origin)
            drawn = cv2.cvtColor(_warp(self.image, local, window), cv2.COLOR_BGR2GRAY)
            correction = motion_of(
                self._warp_mask(local, window),
                dense_flow(drawn.astype(np.uint8), grey[window]),
                window,
            )
            if correction is None:
                break
            improved = self.match(chain(best.pose, correction), image)
            if improved.agreement <= best.agreement:
                break
            best = improved
        return best

    def search(
        self, near: Similarity, image: Bgr, centre: NDArray[np.float64], radius_px: float
    ) -> Similarity | None:
        """Look for the object around a place, at half resolution, over turns and sizes near those
        of a pose.

        Pixels beyond the image are unknown, not black: an object that is half outside is compared
        by its inner half.
        """
        half_size = max(1, round(image.shape[1] / 2)), max(1, round(image.shape[0] / 2))
        half: NDArray[np.float32] = cv2.resize(
            image, half_size, interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        reach = (
            round(
                0.3
                * float(np.hypot(self.box.x2 - self.box.x1, self.box.y2 - self.box.y1))
                * _scale(near)
            )
            + 2
        )
        window = window_around(
            PixelBox(*(centre - radius_px) / 2, *(centre + radius_px) / 2), half.shape, 0
        )
        padded = _bordered(half, reach)
        known = _bordered(np.ones(half.shape[:2], np.float32), reach)
        reached = Window(
            slice(window.rows.start, window.rows.stop + 2 * reach),
            slice(window.columns.start, window.columns.stop + 2 * reach),
        )
        best, best_error = None, SEARCH_MAX_RMS**2
        for kernel_pose in self._kernel_poses(near, reach):
            error_HW = self._mismatch(kernel_pose, 2 * reach + 1, padded[reached], known[reached])
            row, column = np.unravel_index(int(error_HW.argmin()), error_HW.shape)
            if error_HW[row, column] < best_error:
                best_error = float(error_HW[row, column])
                found = moved(kernel_pose, window.origin + np.array([column, row]) - reach)
                best = found * 2
        return best

    def _kernel_poses(self, near: Similarity, reach: int) -> Iterator[Similarity]:
        """Yield poses that draw the template, at half size, in the middle of a square of side
        2·reach + 1.
        """
        middle = np.array([(self.box.x1 + self.box.x2) / 2, (self.box.y1 + self.box.y2) / 2])
        angle = np.arctan2(near[1, 0], near[0, 0])
        for turn in SEARCH_ANGLES_RAD:
            cos, sin = np.cos(angle + turn), np.sin(angle + turn)
            for factor in SEARCH_SCALES:
                linear = 0.5 * factor * _scale(near) * np.array([[cos, -sin], [sin, cos]])
                yield np.column_stack([linear, reach - linear @ middle])

    def _mismatch(
        self,
        pose: Similarity,
        side_px: int,
        padded: NDArray[np.float32],
        known: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the mean squared difference per channel at every place of the kernel, over the
        pixels that are known there.
        """
        whole = Window(slice(0, side_px), slice(0, side_px))
        weight = self._warp_mask(pose, whole).astype(np.float32)
        drawn = _warp(self.image, pose, whole).astype(np.float32) * weight[..., None]
        num_known = _correlate(known, weight)
        squares = (
            _correlate(known, (drawn**2).sum(axis=2))
            + _correlate((padded**2).sum(axis=2), weight)
            - 2 * _correlate(padded, drawn)
        )
        enough = num_known > SEARCH_MIN_INSIDE * max(float(weight.sum()), 1.0)
        return np.where(enough, squares / np.maximum(3 * num_known, 1), np.inf).astype(np.float32)

    def _window(self, pose: Similarity, shape: tuple[int, ...], margin_px: int) -> Window:
        xs, ys = [self.box.x1, self.box.x2], [self.box.y1, self.box.y2]
        corners = np.array([[x, y, 1.0] for x in xs for y in ys]) @ pose.T
        low, high = corners.min(axis=0), corners.max(axis=0)
        return window_around(
            PixelBox(float(low[0]), float(low[1]), float(high[0]), float(high[1])), shape, margin_px
        )

    def _warp_mask(self, pose: Similarity, window: Window) -> Mask:
        return (
            _warp(self.mask_HW.astype(np.uint8) * 255, pose, window, outside=cv2.BORDER_CONSTANT)
            > 127
        )


def _warp(
    image: NDArray[np.uint8], pose: Similarity, window: Window, outside: int = cv2.BORDER_REPLICATE
) -> NDArray[np.uint8]:
    size = window.columns.stop - window.columns.start, window.rows.stop - window.rows.start
    return cv2.warpAffine(image, pose, size, flags=cv2.INTER_LINEAR, borderMode=outside).astype(
        np.uint8, copy=False
    )


def _smooth(image: Bgr) -> Bgr:
    return cv2.GaussianBlur(image, (5, 5), 0).astype(np.uint8, copy=False)


def _bordered(image: NDArray[np.float32], by_px: int) -> NDArray[np.float32]:
    return cv2.copyMakeBorder(image, by_px, by_px, by_px, by_px, cv2.BORDER_CONSTANT).astype(
        np.float32, copy=False
    )


def _correlate(image: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    return cv2.matchTemplate(image, kernel, cv2.TM_CCORR).astype(np.float32, copy=False)


def _square(pose: Similarity) -> NDArray[np.float64]:
    return np.vstack([pose, [0.0, 0.0, 1.0]])


def _scale(pose: Similarity) -> float:
    return float(np.hypot(pose[0, 0], pose[1, 0]))
