"""Images put together from ready-made parts: figures cut out once, backgrounds painted once, then a
image takes a tenth of a millisecond.

Unlike worlds they may hold one figure alone, which is how a model learns what a figure is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from seg_research.core.geometry import ImageSize
from seg_research.mini.backgrounds import CLASHES, Background, draw_background
from seg_research.mini.figures import Shape
from seg_research.mini.grid import KEYFRAME_PX
from seg_research.mini.pretraining_data.training_example import SquareImage
from seg_research.mini.sprites import ASPECT, Colour, Look, Pose, draw_sprite

_CUTOUTS_A_LOOK, _BACKGROUNDS = 14, 160
_SMALLEST, _LARGEST = 0.2, 0.34
_FEWEST_PIXELS = 60
_TRIES = 30


@dataclass(frozen=True, slots=True)
class VisibleFigure:
    """A figure in an image: box (left, top, right, bottom) and point (x, y) in thousandths."""

    look: Look
    box: tuple[float, float, float, float]
    point: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Cutout:
    """A figure as drawn over black, how much of the ground shows through, and which pixels are its
    own.
    """

    colour_HWC: NDArray[np.float32]
    ground_HWC: NDArray[np.float32]
    own_HW: NDArray[np.bool_]


@cache
def _cutouts() -> dict[Look, tuple[_Cutout, ...]]:
    rng = np.random.default_rng(0)
    return {
        Look(colour, shape): tuple(
            _cut_out(rng, Look(colour, shape)) for _ in range(_CUTOUTS_A_LOOK)
        )
        for colour in Colour
        for shape in Shape
    }


def _cut_out(rng: np.random.Generator, look: Look) -> _Cutout:
    pose = Pose(
        ASPECT / 2 + rng.uniform(0, 0.02),
        0.5 + rng.uniform(0, 0.02),
        rng.uniform(_SMALLEST, _LARGEST),
        rng.uniform(-0.2, 0.2),
        mirrored=bool(rng.random() < 0.5),
    )
    black, white = (
        np.zeros((KEYFRAME_PX, KEYFRAME_PX, 3), np.float32),
        np.full((KEYFRAME_PX, KEYFRAME_PX, 3), 255, np.float32),
    )
    drawn = draw_sprite(black, look, pose)
    draw_sprite(white, look, pose)
    assert drawn is not None
    window, alpha_HW = drawn
    return _Cutout(
        black[window], ((white[window] - black[window]) / 255).astype(np.float32), alpha_HW >= 0.5
    )


@cache
def _backgrounds() -> tuple[tuple[NDArray[np.float32], frozenset[Colour]], ...]:
    kinds = [list(Background)[index % len(Background)] for index in range(_BACKGROUNDS)]
    size = ImageSize(KEYFRAME_PX, KEYFRAME_PX)
    return tuple(
        (draw_background(kind, np.random.default_rng(index), size), CLASHES[kind])
        for index, kind in enumerate(kinds)
    )


def draw_scene(rng: random.Random, count: int) -> tuple[SquareImage, list[VisibleFigure]]:
    """Draw a key frame with some figures, and return those of which enough is seen."""
    image, labels, looks = draw_labelled(rng, count)
    return image, [
        found
        for number, look in enumerate(looks, 1)
        if (found := find_visible(labels == number, look)) is not None
    ]


def draw_labelled(
    rng: random.Random, count: int
) -> tuple[SquareImage, NDArray[np.uint8], list[Look]]:
    """Draw a key frame, and return which pixels are of which figure (1, 2, …; 0 is scenery) and
    their looks.
    """
    ground, clashes = rng.choice(_backgrounds())
    canvas, labels = ground.copy(), np.zeros((KEYFRAME_PX, KEYFRAME_PX), np.uint8)
    looks = _looks(rng, count, clashes)
    centres: list[tuple[float, float]] = []
    for number, look in enumerate(looks, 1):
        centres.append(_free_place(rng, centres, 17.0 if count <= 4 else 13.0))
        _paste(canvas, labels, rng.choice(_cutouts()[look]), centres[-1], number)
    return np.clip(canvas, 0, 255).astype(np.uint8), labels, looks


def _looks(rng: random.Random, count: int, clashes: frozenset[Colour]) -> list[Look]:
    """Draw distinct looks; half of the time from few colours and shapes, so that neighbours share
    one or the other.
    """
    colours, shapes = [c for c in Colour if c not in clashes], list(Shape)
    if count > 1 and rng.random() < 0.5:
        colours, shapes = rng.sample(colours, min(3, count)), rng.sample(shapes, 3)
    return rng.sample([Look(c, s) for c in colours for s in shapes], count)


def _free_place(
    rng: random.Random, taken: list[tuple[float, float]], gap_px: float
) -> tuple[float, float]:
    place = (0.0, 0.0)
    for _ in range(_TRIES):
        place = (rng.uniform(8, KEYFRAME_PX - 8), rng.uniform(10, KEYFRAME_PX - 10))
        if all((place[0] - x) ** 2 + (place[1] - y) ** 2 > gap_px**2 for x, y in taken):
            break
    return place


def _paste(
    canvas: NDArray[np.float32],
    labels: NDArray[np.uint8],
    cutout: _Cutout,
    centre: tuple[float, float],
    number: int,
) -> None:
    height, width = cutout.own_HW.shape
    left, top = int(centre[0] - width / 2), int(centre[1] - height / 2)
    rows = slice(max(0, top), min(KEYFRAME_PX, top + height))
    columns = slice(max(0, left), min(KEYFRAME_PX, left + width))
    part = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    canvas[rows, columns] = (
        canvas[rows, columns] * cutout.ground_HWC[part] + cutout.colour_HWC[part]
    )
    labels[rows, columns][cutout.own_HW[part]] = number


def find_visible(own_HW: NDArray[np.bool_], look: Look) -> VisibleFigure | None:
    """Return where a figure is, or None if too little of it is seen."""
    if np.count_nonzero(own_HW) < _FEWEST_PIXELS:
        return None
    rows, columns = np.flatnonzero(own_HW.any(1)), np.flatnonzero(own_HW.any(0))
    down, across = 1000 / own_HW.shape[0], 1000 / own_HW.shape[1]
    y_N, x_N = np.nonzero(own_HW)
    box = (columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down)
    return VisibleFigure(look, box, (float(x_N.mean()) * across, float(y_N.mean()) * down))
