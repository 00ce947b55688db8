"""Coordinates as types. A number never leaves the frame of reference it was made in without passing
through here.

Two frames of reference exist. *Pixels*: origin at the top-left pixel's centre, boxes hold the first
and the last pixel they cover (inclusive extremes, the convention of the OK-VOS ground truth).
*Norm1000*: 0..1000 over the whole image, the convention of Qwen3-VL, independent of how the image
was resized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

NORM = 1000


class ImageSize(NamedTuple):
    """Width and height of an image, in pixels."""

    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class PixelPoint:
    """A pixel position, x to the right, y down."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A box by its first and last covered pixel (inclusive extremes), in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Norm1000Point:
    """A point in thousandths of image width and height.

    Raises:
        ValueError: a coordinate is not finite or lies outside 0..1000.
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        _check_range((self.x, self.y), "Norm1000Point")


@dataclass(frozen=True, slots=True)
class Norm1000Box:
    """A box with positive area in thousandths of image width and height, x1 < x2 and y1 < y2.

    Raises:
        ValueError: a coordinate is not finite, lies outside 0..1000, or the box has no area.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        _check_range((self.x1, self.y1, self.x2, self.y2), "Norm1000Box")
        if not (self.x1 < self.x2 and self.y1 < self.y2):
            raise ValueError(
                f"Norm1000Box {self.as_list()} has no area: expected x1 < x2 and y1 < y2"
            )

    def as_list(self) -> list[float]:
        """Return [x1, y1, x2, y2]."""
        return [self.x1, self.y1, self.x2, self.y2]

    def contains(self, point: Norm1000Point) -> bool:
        """Tell whether the point lies inside or on the edge."""
        return self.x1 <= point.x <= self.x2 and self.y1 <= point.y <= self.y2


def _check_range(values: tuple[float, ...], what: str) -> None:
    # NaN and the infinities fail the comparison as well; math.isfinite would overflow on a huge
    # integer.
    if not all(0 <= v <= NORM for v in values):
        raise ValueError(
            f"{what} {list(values)} is outside 0..{NORM}; pixel coordinates must be converted with "
            "box_to_norm1000 first"
        )


def box_to_norm1000(box: PixelBox, size: ImageSize) -> Norm1000Box:
    """Convert a pixel box by x·1000/width and y·1000/height, rounded, as the OK-VOS preparation
    does.

    A box thinner than half a thousandth is widened to one, so that a one-pixel target in a large
    frame keeps an area.

    Raises:
        ValueError: the box is inverted or reaches out of the image.
    """
    if box.x2 < box.x1 or box.y2 < box.y1:
        raise ValueError(f"{box} is inverted: expected x1 <= x2 and y1 <= y2")
    x1, x2 = _span(box.x1, box.x2, size.width_px)
    y1, y2 = _span(box.y1, box.y2, size.height_px)
    return Norm1000Box(x1, y1, x2, y2)


def _span(first_px: float, last_px: float, extent_px: int) -> tuple[int, int]:
    low, high = round(NORM * first_px / extent_px), round(NORM * last_px / extent_px)
    if high <= low:
        low, high = (low, low + 1) if low < NORM else (NORM - 1, NORM)
    return low, high


def point_to_norm1000(point: PixelPoint, size: ImageSize) -> Norm1000Point:
    """Convert a pixel point by x·1000/width and y·1000/height, rounded."""
    return Norm1000Point(
        round(NORM * point.x / size.width_px), round(NORM * point.y / size.height_px)
    )


def box_to_pixels(box: Norm1000Box, size: ImageSize) -> PixelBox:
    """Convert to inclusive pixel extremes, clipped to the image; not rounded."""
    w, h = size
    return PixelBox(
        min(box.x1 * w / NORM, w - 1),
        min(box.y1 * h / NORM, h - 1),
        min(box.x2 * w / NORM, w - 1),
        min(box.y2 * h / NORM, h - 1),
    )


def point_to_pixels(point: Norm1000Point, size: ImageSize) -> PixelPoint:
    """Convert to a pixel position, clipped to the image; not rounded."""
    return PixelPoint(
        min(point.x * size.width_px / NORM, size.width_px - 1),
        min(point.y * size.height_px / NORM, size.height_px - 1),
    )


def inclusive_iou(a: Norm1000Box, b: Norm1000Box) -> float:
    """IoU that counts both end coordinates (+1 on each side), in [0, 1]; the benchmark's own reward
    uses it (specs §5.1).
    """
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = (width + 1) * (height + 1)
    union = (
        (a.x2 - a.x1 + 1) * (a.y2 - a.y1 + 1) + (b.x2 - b.x1 + 1) * (b.y2 - b.y1 + 1) - intersection
    )
    return intersection / union
