"""What floats through a world: ten shapes in seven colours, drawn as shaded vector figures with
exact coverage.

A figure lives in a unit square around (0, 0), x to the right, y down, its longer side 1. Drawing is
supersampled; the alpha it yields is the true coverage of each pixel. The drop shadow is light on
what lies behind, not part of the figure.

Axes: H, W image; C colour channel; N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_research.core.geometry import ImageSize
from seg_research.mini.figures import OUTLINE, Points, Rgb, Shape, layers_of


class Colour(StrEnum):
    """Colours that stay apart at thumbnail size; the value is the word used in texts."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"


RGB: dict[Colour, Rgb] = {
    Colour.RED: (214, 30, 38),
    Colour.ORANGE: (250, 128, 12),
    Colour.YELLOW: (252, 216, 34),
    Colour.GREEN: (38, 166, 62),
    Colour.BLUE: (28, 92, 226),
    Colour.PURPLE: (128, 48, 184),
    Colour.PINK: (255, 132, 190),
}


@dataclass(frozen=True, slots=True)
class Look:
    """A figure in a colour."""

    colour: Colour
    shape: Shape

    @property
    def words(self) -> str:
        """The name of the look, e.g. `red kite`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a figure is. Lengths are in image heights, the x axis runs from 0 to the image's
    width/height.

    Attributes:
        diameter: longer side of the figure.
        angle: clockwise, radians.
        mirrored: left and right exchanged.
    """

    x: float
    y: float
    diameter: float
    angle: float = 0.0
    mirrored: bool = False


_SUPERSAMPLING = 4
_SUBPIXEL_BITS = 4
_OUTLINE_TONE = -0.48
_LIGHT, _LIGHT_FALL = 1.13, 0.27
_SHADOW_STRENGTH, _SHADOW_DX, _SHADOW_DY, _SHADOW_SIGMA = 0.34, 0.05, 0.08, 0.035


def draw_sprite(
    canvas_HWC: NDArray[np.float32], look: Look, pose: Pose
) -> tuple[tuple[slice, slice], NDArray[np.float32]] | None:
    """Paint one figure and its shadow over a canvas, in place.

    Args:
        canvas_HWC: float RGB in 0..255; its height is 1 and its width 4/3 whatever its pixel
            counts, so squashed canvases work.
        look: what to paint.
        pose: where.

    Returns:
        The window of the canvas it touched and its coverage there (h, w) in 0..1; None if it lies
            outside.
    """
    size = ImageSize(canvas_HWC.shape[1], canvas_HWC.shape[0])
    window = _window(pose, size)
    if window is None:
        return None
    rows, columns = window
    rgba_HWC = _paint(look, pose, size, window)
    alpha_HW = rgba_HWC[..., 3:] / 255.0
    under_HWC = canvas_HWC[rows, columns] * (
        1.0 - _SHADOW_STRENGTH * _shadow(alpha_HW[..., 0], pose, size)[..., None]
    )
    canvas_HWC[rows, columns] = under_HWC * (1.0 - alpha_HW) + rgba_HWC[..., :3]
    return window, alpha_HW[..., 0]


def fill_silhouette(labels_HW: NDArray[np.uint8], look: Look, pose: Pose, label: int) -> None:
    """Write a label over the pixels a figure covers, without supersampling: the cheap twin of
    `draw_sprite`, in place.
    """
    size = ImageSize(labels_HW.shape[1], labels_HW.shape[0])
    placement = _placement(pose, size)
    for layer in layers_of(look.shape):
        if layer.outlined:
            cv2.fillPoly(
                labels_HW, [placement.polygon(layer.points_N2)], [label], cv2.LINE_8, _SUBPIXEL_BITS
            )


def _window(pose: Pose, size: ImageSize) -> tuple[slice, slice] | None:
    """Return the rows and columns that figure and shadow can touch."""
    scale_x, scale_y = _scales(size)
    reach = pose.diameter * 0.95
    x1, x2 = (
        max(0, math.floor((pose.x - reach) * scale_x)),
        min(size.width_px, math.ceil((pose.x + reach) * scale_x)),
    )
    y1, y2 = (
        max(0, math.floor((pose.y - reach) * scale_y)),
        min(size.height_px, math.ceil((pose.y + reach) * scale_y)),
    )
    return (slice(y1, y2), slice(x1, x2)) if x1 < x2 and y1 < y2 else None


def _scales(size: ImageSize) -> tuple[float, float]:
    return size.width_px / ASPECT, float(size.height_px)


ASPECT = 4 / 3
"""Width of every image of a world, in heights, however many pixels it has."""


class _Placement(NamedTuple):
    """Unit coordinates to pixel coordinates, a pixel's centre at its integer."""

    turn_22: NDArray[np.float64]
    shift_2: NDArray[np.float64]

    def polygon(self, points_N2: Points) -> NDArray[np.int32]:
        """Place points and write them as OpenCV's fixed-point numbers."""
        return np.rint((points_N2 @ self.turn_22 + self.shift_2) * 2**_SUBPIXEL_BITS).astype(
            np.int32
        )

    def magnified(self, factor: int, left_px: int, top_px: int) -> _Placement:
        """Return the same on a window of the image that is magnified by a factor."""
        return _Placement(
            self.turn_22 * factor, (self.shift_2 + 0.5 - (left_px, top_px)) * factor - 0.5
        )


def _placement(pose: Pose, size: ImageSize) -> _Placement:
    cos, sin = math.cos(pose.angle) * pose.diameter, math.sin(pose.angle) * pose.diameter
    scale_x, scale_y = _scales(size)
    flip = -1 if pose.mirrored else 1
    turn_22 = np.array(
        [[flip * cos * scale_x, flip * sin * scale_y], [-sin * scale_x, cos * scale_y]]
    )
    return _Placement(turn_22, np.array([pose.x * scale_x - 0.5, pose.y * scale_y - 0.5]))


def _paint(
    look: Look, pose: Pose, size: ImageSize, window: tuple[slice, slice]
) -> NDArray[np.float32]:
    """Paint the figure alone over the window: premultiplied RGB and alpha, (h, w, 4) in 0..255."""
    rows, columns = window
    height, width = rows.stop - rows.start, columns.stop - columns.start
    fine_HWC = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 4), np.uint8)
    base = RGB[look.colour]
    thickness = max(1, round(2 * OUTLINE * pose.diameter * size.height_px * _SUPERSAMPLING))
    placement = _placement(pose, size).magnified(_SUPERSAMPLING, columns.start, rows.start)
    for layer in layers_of(look.shape):
        polygon = [placement.polygon(layer.points_N2)]
        colour = layer.fixed or _toned(base, layer.tone)
        if layer.outlined:
            cv2.polylines(
                fine_HWC,
                polygon,
                True,
                (*_toned(colour, _OUTLINE_TONE), 255),
                thickness,
                cv2.LINE_8,
                _SUBPIXEL_BITS,
            )
        cv2.fillPoly(fine_HWC, polygon, (*colour, 255), cv2.LINE_8, _SUBPIXEL_BITS)
    rgba_HWC = cv2.resize(fine_HWC, (width, height), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    rgba_HWC[..., :3] *= _shading(pose, size, window)[..., None]
    return np.minimum(rgba_HWC, rgba_HWC[..., 3:].clip(0, 255))


def _toned(colour: Rgb, tone: float) -> Rgb:
    end, weight = (255, tone) if tone > 0 else (0, -tone)
    red, green, blue = (round(c * (1 - weight) + end * weight) for c in colour)
    return red, green, blue


def _shading(pose: Pose, size: ImageSize, window: tuple[slice, slice]) -> NDArray[np.float32]:
    """Light from the upper left: brightness factor over the window."""
    rows, columns = window
    scale_x, scale_y = _scales(size)
    x_W = (
        np.arange(columns.start, columns.stop, dtype=np.float32) / scale_x - pose.x
    ) / pose.diameter
    y_H = (np.arange(rows.start, rows.stop, dtype=np.float32) / scale_y - pose.y) / pose.diameter
    depth_HW = np.clip(0.5 + 0.45 * x_W[None, :] + 0.75 * y_H[:, None], 0, 1)
    return (_LIGHT - _LIGHT_FALL * depth_HW).astype(np.float32)


def _shadow(alpha_HW: NDArray[np.float32], pose: Pose, size: ImageSize) -> NDArray[np.float32]:
    scale_x, scale_y = _scales(size)
    shift = np.array(
        [
            [1, 0, _SHADOW_DX * pose.diameter * scale_x],
            [0, 1, _SHADOW_DY * pose.diameter * scale_y],
        ],
        np.float32,
    )
    moved_HW = cv2.warpAffine(alpha_HW, shift, (alpha_HW.shape[1], alpha_HW.shape[0]))
    sigma = _SHADOW_SIGMA * pose.diameter
    return cv2.GaussianBlur(
        moved_HW, (0, 0), sigmaX=max(sigma * scale_x, 0.3), sigmaY=max(sigma * scale_y, 0.3)
    ).astype(np.float32)
