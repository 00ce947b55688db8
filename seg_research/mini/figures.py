"""The ten figures as layered polygons.

A figure lives in a unit square around (0, 0), x to the right, y down, its longer side 1, looking
left where it has a face.

Axes: N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np

from seg_research.mini.polygons import Points, ellipse, polygon, smooth

Rgb = tuple[int, int, int]

OUTLINE = 0.028
"""Half the width of an outline; a figure's box includes it."""

_CREAM, _INK, _WOOD, _BEAK = (252, 240, 214), (38, 32, 46), (150, 104, 66), (255, 190, 60)


class Shape(StrEnum):
    """Figures; the value is the word used in texts."""

    KITE = "kite"
    LANTERN = "lantern"
    FISH = "fish"
    BOAT = "boat"
    STAR = "star"
    MUSHROOM = "mushroom"
    BALLOON = "balloon"
    LEAF = "leaf"
    BIRD = "bird"
    GEM = "gem"


@dataclass(frozen=True, slots=True)
class Layer:
    """One filled polygon. Tone lightens (to 1) or darkens (to -1) the figure's colour, unless a
    fixed colour is given.
    """

    points_N2: Points
    tone: float = 0.0
    fixed: Rgb | None = None
    outlined: bool = False


@cache
def layers_of(shape: Shape) -> tuple[Layer, ...]:
    """Return a figure's layers, back to front, centred and scaled so that the longer side of its
    outlined parts is 1.
    """
    layers = _FIGURES[shape]()
    solid_N2 = np.concatenate([layer.points_N2 for layer in layers if layer.outlined])
    low, high = solid_N2.min(axis=0), solid_N2.max(axis=0)
    side = float((high - low).max()) / (1 - 2 * OUTLINE)
    centre = (low + high) / 2
    return tuple(
        Layer((layer.points_N2 - centre) / side, layer.tone, layer.fixed, layer.outlined)
        for layer in layers
    )


def _kite() -> list[Layer]:
    top, left, right, low, mid = (
        (0.0, -0.52),
        (-0.42, -0.14),
        (0.42, -0.14),
        (0.0, 0.32),
        (0.0, -0.14),
    )
    return [
        Layer(
            polygon(
                (-0.02, 0.26), (0.06, 0.36), (0.0, 0.46), (0.05, 0.48), (0.11, 0.36), (0.02, 0.26)
            ),
            -0.3,
            outlined=True,
        ),
        Layer(polygon((0.03, 0.44), (-0.13, 0.36), (-0.13, 0.54)), 0.15, outlined=True),
        Layer(polygon((0.03, 0.44), (0.18, 0.36), (0.18, 0.54)), -0.15, outlined=True),
        Layer(polygon(top, right, low, left), outlined=True),
        Layer(polygon(top, mid, left), 0.38),
        Layer(polygon(right, low, mid), -0.18),
    ]


def _lantern() -> list[Layer]:
    body = smooth(
        (-0.2, -0.32),
        (0.2, -0.32),
        (0.38, -0.1),
        (0.38, 0.1),
        (0.2, 0.32),
        (-0.2, 0.32),
        (-0.38, 0.1),
        (-0.38, -0.1),
    )
    return [
        Layer(
            polygon((-0.05, 0.36), (0.05, 0.36), (0.09, 0.56), (-0.09, 0.56)),
            fixed=_BEAK,
            outlined=True,
        ),
        Layer(body, outlined=True),
        Layer(ellipse(0, 0, 0.22, 0.31), 0.28),
        Layer(ellipse(0, 0, 0.09, 0.31), 0.62),
        Layer(
            polygon((-0.21, -0.44), (0.21, -0.44), (0.25, -0.3), (-0.25, -0.3)),
            fixed=(92, 58, 50),
            outlined=True,
        ),
        Layer(
            polygon((-0.22, 0.28), (0.22, 0.28), (0.19, 0.4), (-0.19, 0.4)),
            fixed=(92, 58, 50),
            outlined=True,
        ),
    ]


def _fish() -> list[Layer]:
    return [
        Layer(
            smooth((0.24, 0.02), (0.5, -0.24), (0.47, 0.02), (0.52, 0.28), (0.26, 0.08)),
            -0.14,
            outlined=True,
        ),
        Layer(
            smooth((-0.12, -0.2), (0.02, -0.36), (0.22, -0.3), (0.2, -0.12)), -0.14, outlined=True
        ),
        Layer(
            smooth(
                (-0.5, 0.0),
                (-0.34, -0.2),
                (-0.06, -0.27),
                (0.2, -0.13),
                (0.32, 0.02),
                (0.18, 0.16),
                (-0.08, 0.26),
                (-0.36, 0.18),
            ),
            outlined=True,
        ),
        Layer(
            smooth(
                (-0.4, 0.09), (-0.1, 0.1), (0.2, 0.06), (0.06, 0.17), (-0.12, 0.21), (-0.32, 0.16)
            ),
            0.5,
        ),
        Layer(smooth((-0.06, -0.02), (0.12, 0.0), (0.09, 0.13), (-0.02, 0.1)), -0.22),
        Layer(ellipse(-0.3, -0.05, 0.075, 0.075), fixed=(255, 255, 255)),
        Layer(ellipse(-0.315, -0.05, 0.042, 0.042), fixed=_INK),
    ]


def _boat() -> list[Layer]:
    return [
        Layer(
            polygon((-0.02, -0.5), (0.03, -0.5), (0.03, 0.24), (-0.02, 0.24)),
            fixed=_WOOD,
            outlined=True,
        ),
        Layer(polygon((0.05, -0.48), (0.2, -0.22), (0.36, 0.14), (0.05, 0.14)), outlined=True),
        Layer(
            polygon((-0.06, -0.4), (-0.06, 0.14), (-0.32, 0.14), (-0.2, -0.12)), 0.4, outlined=True
        ),
        Layer(
            smooth(
                (-0.48, 0.24),
                (0.0, 0.22),
                (0.48, 0.22),
                (0.4, 0.36),
                (0.26, 0.46),
                (-0.24, 0.46),
                (-0.38, 0.38),
            ),
            -0.12,
            outlined=True,
        ),
        Layer(polygon((-0.42, 0.27), (0.44, 0.25), (0.42, 0.31), (-0.4, 0.33)), fixed=_CREAM),
    ]


def _star() -> list[Layer]:
    radii = [0.52 if i % 2 == 0 else 0.235 for i in range(10)]
    tips = [
        (r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)
    ]
    layers = [Layer(polygon(*tips), outlined=True)]
    layers += [Layer(polygon((0, 0), tips[i], tips[i - 1]), 0.3) for i in range(0, 10, 2)]
    layers += [Layer(polygon((0, 0), tips[i], tips[(i + 1) % 10]), -0.12) for i in range(0, 10, 2)]
    return layers


def _mushroom() -> list[Layer]:
    cap = smooth(
        (-0.48, 0.06),
        (-0.43, -0.2),
        (-0.2, -0.42),
        (0.06, -0.46),
        (0.32, -0.33),
        (0.46, -0.1),
        (0.48, 0.06),
        (0.24, 0.12),
        (0, 0.14),
        (-0.24, 0.12),
    )
    return [
        Layer(
            smooth(
                (-0.15, 0.05),
                (0.15, 0.05),
                (0.15, 0.25),
                (0.22, 0.42),
                (0.0, 0.48),
                (-0.22, 0.42),
                (-0.15, 0.25),
            ),
            fixed=_CREAM,
            outlined=True,
        ),
        Layer(cap, outlined=True),
        Layer(ellipse(-0.2, -0.16, 0.1, 0.085, -0.4), fixed=_CREAM),
        Layer(ellipse(0.1, -0.28, 0.085, 0.065, 0.2), fixed=_CREAM),
        Layer(ellipse(0.25, -0.06, 0.085, 0.07, 0.3), fixed=_CREAM),
        Layer(ellipse(-0.02, -0.01, 0.055, 0.045), fixed=_CREAM),
    ]


def _balloon() -> list[Layer]:
    body = smooth(
        (0, -0.5),
        (0.24, -0.44),
        (0.37, -0.22),
        (0.33, 0.04),
        (0.16, 0.24),
        (0, 0.32),
        (-0.16, 0.24),
        (-0.33, 0.04),
        (-0.37, -0.22),
        (-0.24, -0.44),
    )
    return [
        Layer(
            polygon(
                (-0.012, 0.34),
                (0.03, 0.34),
                (0.06, 0.42),
                (0.01, 0.5),
                (-0.03, 0.49),
                (0.015, 0.42),
            ),
            fixed=_CREAM,
            outlined=True,
        ),
        Layer(polygon((0, 0.27), (0.08, 0.38), (-0.08, 0.38)), -0.15, outlined=True),
        Layer(body, outlined=True),
        Layer(ellipse(-0.15, -0.25, 0.075, 0.14, 0.45), 0.68),
        Layer(ellipse(-0.23, -0.04, 0.028, 0.05, 0.1), 0.5),
    ]


def _leaf() -> list[Layer]:
    blade = smooth(
        (0.0, -0.5),
        (0.2, -0.32),
        (0.31, -0.06),
        (0.22, 0.18),
        (0.0, 0.36),
        (-0.22, 0.18),
        (-0.31, -0.06),
        (-0.2, -0.32),
    )
    veins = [
        polygon((0, y), (side * 0.2, y - 0.14), (side * 0.21, y - 0.1), (0, y + 0.045))
        for y in (-0.14, 0.03, 0.19)
        for side in (-1, 1)
    ]
    upright = [
        Layer(
            polygon((-0.035, 0.3), (0.035, 0.3), (0.06, 0.52), (-0.02, 0.53)), -0.35, outlined=True
        ),
        Layer(blade, outlined=True),
        Layer(
            smooth(
                (0.0, -0.47), (0.19, -0.3), (0.29, -0.06), (0.2, 0.17), (0.0, 0.34), (0.0, -0.1)
            ),
            -0.16,
        ),
        *(Layer(vein, 0.42) for vein in veins),
        Layer(polygon((0, -0.4), (0.025, 0.34), (-0.025, 0.34)), 0.42),
    ]
    cos, sin = math.cos(0.7), math.sin(0.7)
    turn = np.array([[cos, sin], [-sin, cos]])
    return [
        Layer(layer.points_N2 @ turn, layer.tone, layer.fixed, layer.outlined) for layer in upright
    ]


def _bird() -> list[Layer]:
    return [
        Layer(polygon((-0.5, -0.14), (-0.34, -0.2), (-0.34, -0.08)), fixed=_BEAK, outlined=True),
        Layer(
            polygon((0.2, 0.0), (0.52, -0.06), (0.5, 0.06), (0.44, 0.12), (0.2, 0.2)),
            -0.15,
            outlined=True,
        ),
        Layer(
            smooth(
                (-0.4, -0.14),
                (-0.34, -0.3),
                (-0.2, -0.35),
                (-0.07, -0.26),
                (0.1, -0.12),
                (0.3, 0.02),
                (0.24, 0.2),
                (0.02, 0.32),
                (-0.22, 0.26),
                (-0.36, 0.06),
            ),
            outlined=True,
        ),
        Layer(smooth((-0.3, 0.04), (-0.1, 0.12), (0.12, 0.16), (0.02, 0.27), (-0.2, 0.22)), 0.5),
        Layer(
            smooth(
                (-0.14, -0.1), (0.1, -0.34), (0.38, -0.44), (0.33, -0.2), (0.24, 0.04), (0.04, 0.1)
            ),
            0.22,
            outlined=True,
        ),
        Layer(ellipse(-0.24, -0.2, 0.052, 0.052), fixed=(255, 255, 255)),
        Layer(ellipse(-0.25, -0.2, 0.03, 0.03), fixed=_INK),
    ]


def _gem() -> list[Layer]:
    a, b, c, d = (-0.28, -0.36), (0.28, -0.36), (0.5, -0.1), (-0.5, -0.1)
    tip, left, right, top = (0.0, 0.42), (-0.2, -0.1), (0.2, -0.1), (0.0, -0.36)
    return [
        Layer(polygon(a, b, c, tip, d), outlined=True),
        Layer(polygon(a, top, left), 0.35),
        Layer(polygon(top, right, left), 0.62),
        Layer(polygon(b, right, top), 0.2),
        Layer(polygon(a, left, d), 0.1),
        Layer(polygon(d, left, tip), 0.3),
        Layer(polygon(right, c, tip), -0.22),
        Layer(polygon(b, c, right), -0.15),
    ]


_FIGURES: dict[Shape, Callable[[], list[Layer]]] = {
    Shape.KITE: _kite,
    Shape.LANTERN: _lantern,
    Shape.FISH: _fish,
    Shape.BOAT: _boat,
    Shape.STAR: _star,
    Shape.MUSHROOM: _mushroom,
    Shape.BALLOON: _balloon,
    Shape.LEAF: _leaf,
    Shape.BIRD: _bird,
    Shape.GEM: _gem,
}
