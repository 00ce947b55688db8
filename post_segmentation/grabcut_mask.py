"""GrabCut where it is sure to help: from a box on the key frame, and from a guessed mask on the
frames after it. Axes: H rows, W columns.

All work happens in a window around the object: its surroundings are what the object must be told
from, and small windows are fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.masks import Mask, mask_box

Bgr: TypeAlias = NDArray[np.uint8]
"""An image (H, W, 3), blue first, as OpenCV has it."""

SURROUNDINGS = 0.5
"""The window around a box is wider by this share of its longer side, on each side."""
MIN_SURROUNDINGS_PX = 16
TIGHT_ENOUGH = 0.95
TOO_LOOSE = 0.6
"""IoU of a cut's own box with the prompted one: above the first, nothing better is tried; below the
second, the centre is forced in.
"""
MAX_RIM_PX = 3
"""A dark outline on a dark background is lost by up to this much; a tight box tells that it belongs
to the object.
"""
MIN_PART = 0.1
"""Separate pieces smaller than this share of the main one are noise."""
GUESS_BAND_PX = 3
"""How far a cut may leave the guess that it starts from."""


class Window(NamedTuple):
    """A rectangle of an image."""

    rows: slice
    columns: slice

    @property
    def origin(self) -> NDArray[np.float32]:
        """Return (x, y) of its first pixel."""
        return np.array([self.columns.start, self.rows.start], np.float32)


def window_around(box: PixelBox, shape: Sequence[int], margin_px: int) -> Window:
    """Return the part of an image at most `margin_px` away from a box; at least one pixel."""
    height_px, width_px = shape[:2]
    top = min(max(int(box.y1) - margin_px, 0), height_px - 1)
    left = min(max(int(box.x1) - margin_px, 0), width_px - 1)
    bottom = max(min(int(box.y2) + margin_px + 1, height_px), top + 1)
    right = max(min(int(box.x2) + margin_px + 1, width_px), left + 1)
    return Window(slice(top, bottom), slice(left, right))


def disk(radius_px: int) -> NDArray[np.uint8]:
    """Return a round structuring element."""
    return cv2.getStructuringElement(
        cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1)
    ).astype(np.uint8)


def grow(mask_HW: Mask, radius_px: int) -> Mask:
    """Dilate a mask by a disk."""
    return cv2.dilate(mask_HW.astype(np.uint8), disk(radius_px)).astype(np.bool_)


def shrink(mask_HW: Mask, radius_px: int) -> Mask:
    """Erode a mask by a disk."""
    return cv2.erode(mask_HW.astype(np.uint8), disk(radius_px)).astype(np.bool_)


def difference_of(a: Bgr, b: Bgr) -> NDArray[np.uint8]:
    """Return the largest channel difference of every pixel, (H, W)."""
    blue, green, red = cv2.split(cv2.absdiff(a, b))
    return cv2.max(cv2.max(blue, green), red).astype(np.uint8, copy=False)


def cut_box(
    image: Bgr,
    box: PixelBox,
    points: Sequence[PixelPoint],
    negative_points: Sequence[PixelPoint],
    changed_HW: Mask | None = None,
) -> Mask:
    """Segment what a tight box holds.

    Several starts are cut; kept is the one whose own box comes closest to the prompted box, as it
    is meant to be tight.

    Args:
        image: the key frame.
        box: around the object, in its pixels.
        points: inside the object.
        negative_points: not on the object.
        changed_HW: pixels known not to be background, where that is known.
    """
    longer_px = max(box.x2 - box.x1, box.y2 - box.y1) + 1
    window = window_around(
        box, image.shape, max(MIN_SURROUNDINGS_PX, round(SURROUNDINGS * longer_px))
    )
    crop = np.ascontiguousarray(image[window])
    x, y = window.origin
    local = PixelBox(round(box.x1 - x), round(box.y1 - y), round(box.x2 - x), round(box.y2 - y))
    inside = np.zeros(crop.shape[:2], np.bool_)
    inside[int(local.y1) : int(local.y2) + 1, int(local.x1) : int(local.x2) + 1] = True
    positives, negatives = (
        _discs(points, local, window, inside.shape),
        _discs(negative_points, local, window, inside.shape),
    )
    best, best_fit = inside, 0.0
    for labels, wanted_below in _starts(
        inside, local, None if changed_HW is None else changed_HW[window]
    ):
        if best_fit >= wanted_below:
            break
        labels[positives], labels[negatives] = cv2.GC_FGD, cv2.GC_BGD
        candidate = _main_parts(_cut(crop, labels, num_rounds=5), positives)
        fit = _box_fit(candidate, local)
        if fit > best_fit:
            best, best_fit = candidate, fit
    mask_HW = np.zeros(image.shape[:2], np.bool_)
    mask_HW[window] = _restore_rim(best, inside, _free_sides(box, image.shape)) & ~negatives
    return mask_HW


def cut_guess(image: Bgr, guess_HW: Mask, sure_HW: Mask) -> Mask:
    """Move the edge of a guessed mask onto the edges of the image, within a narrow band.

    Args:
        image: the frame.
        guess_HW: roughly the object; the cut stays within `GUESS_BAND_PX` of it.
        sure_HW: pixels that stay in.
    """
    box = mask_box(guess_HW)
    cut_HW = np.zeros(guess_HW.shape, np.bool_)
    if box is None:
        return cut_HW
    window = window_around(box, guess_HW.shape, MIN_SURROUNDINGS_PX)
    guess = guess_HW[window]
    labels = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[~grow(guess, GUESS_BAND_PX)] = cv2.GC_BGD
    labels[sure_HW[window]] = cv2.GC_FGD
    cut_HW[window] = _cut(np.ascontiguousarray(image[window]), labels, num_rounds=1)
    return cut_HW


def _cut(crop: Bgr, labels_HW: NDArray[np.uint8], num_rounds: int) -> Mask:
    """Run GrabCut; where one of the two sides has no pixel to learn its colours from, the labels
    are the answer.
    """
    foreground = (labels_HW == cv2.GC_FGD) | (labels_HW == cv2.GC_PR_FGD)
    if not foreground.any() or foreground.all():
        return foreground
    # Its colour clusters start from OpenCV's global random numbers.
    cv2.setRNGSeed(0)
    cv2.grabCut(
        crop,
        labels_HW,
        (0, 0, 0, 0),
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        num_rounds,
        cv2.GC_INIT_WITH_MASK,
    )
    return (labels_HW == cv2.GC_FGD) | (labels_HW == cv2.GC_PR_FGD)


def _starts(
    inside: Mask, box: PixelBox, changed: Mask | None
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Yield label maps to cut from, each with the fit below which it is worth trying."""
    whole = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    yield whole.copy(), TIGHT_ENOUGH
    corners_doubtful = whole.copy()
    corners_doubtful[inside & ~_ellipse(inside.shape, box, 1.0)] = cv2.GC_PR_BGD
    yield corners_doubtful, TIGHT_ENOUGH
    if changed is not None:
        yield np.where(inside & ~changed, cv2.GC_PR_BGD, whole).astype(np.uint8), TIGHT_ENOUGH
    centre_sure = whole
    centre_sure[inside & _ellipse(inside.shape, box, 0.6)] = cv2.GC_FGD
    yield centre_sure, TOO_LOOSE


def _ellipse(shape: tuple[int, ...], box: PixelBox, share: float) -> Mask:
    canvas = np.zeros(shape, np.uint8)
    centre = round((box.x1 + box.x2) / 2), round((box.y1 + box.y2) / 2)
    axes = (
        max(1, round(share * (box.x2 - box.x1) / 2)),
        max(1, round(share * (box.y2 - box.y1) / 2)),
    )
    return cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1).astype(np.bool_)


def _discs(
    points: Sequence[PixelPoint], box: PixelBox, window: Window, shape: tuple[int, ...]
) -> Mask:
    canvas = np.zeros(shape, np.uint8)
    radius_px = max(2, round(0.04 * min(box.x2 - box.x1, box.y2 - box.y1)))
    for point in points:
        x, y = window.origin
        cv2.circle(canvas, (round(point.x - float(x)), round(point.y - float(y))), radius_px, 1, -1)
    return canvas.astype(np.bool_)


def _main_parts(mask_HW: Mask, wanted_HW: Mask) -> Mask:
    """Drop small separate pieces; pieces that hold a prompted point set the measure and always
    stay.
    """
    num_labels, labels_HW, stats, _ = cv2.connectedComponentsWithStats(
        mask_HW.astype(np.uint8), connectivity=8
    )
    if num_labels <= 2:
        return mask_HW
    areas = stats[:, cv2.CC_STAT_AREA]
    prompted = {int(label) for label in np.unique(labels_HW[wanted_HW & mask_HW])}
    main_area = max((int(areas[label]) for label in prompted), default=int(areas[1:].max()))
    kept = [
        label
        for label in range(1, num_labels)
        if label in prompted or areas[label] >= MIN_PART * main_area
    ]
    return np.isin(labels_HW, kept)


def _box_fit(mask_HW: Mask, box: PixelBox) -> float:
    """Return the IoU of a mask's tight box with a box, counting pixels."""
    own = mask_box(mask_HW)
    if own is None:
        return 0.0
    width = min(own.x2, box.x2) - max(own.x1, box.x1) + 1
    height = min(own.y2, box.y2) - max(own.y1, box.y1) + 1
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((b.x2 - b.x1 + 1) * (b.y2 - b.y1 + 1) for b in (own, box))
    return common / (areas - common)


def _free_sides(box: PixelBox, shape: Sequence[int]) -> tuple[bool, bool, bool, bool]:
    """Tell for left, top, right, bottom whether the box ends inside the image; an object that is
    cut off fills its box there anyway.
    """
    return box.x1 > 1, box.y1 > 1, box.x2 < shape[1] - 2, box.y2 < shape[0] - 2


def _restore_rim(mask_HW: Mask, inside: Mask, free_sides: tuple[bool, bool, bool, bool]) -> Mask:
    """Grow the mask by the gap that it leaves on every side of its box."""
    own, box = mask_box(mask_HW), mask_box(inside)
    if own is None or box is None:
        return mask_HW
    gaps = own.x1 - box.x1, own.y1 - box.y1, box.x2 - own.x2, box.y2 - own.y2
    gap_px = min((gap for gap, free in zip(gaps, free_sides, strict=True) if free), default=0)
    rim_px = min(MAX_RIM_PX, max(0, int(gap_px)))
    return grow(mask_HW, rim_px) & inside if rim_px else mask_HW
