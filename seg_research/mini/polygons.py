"""Outlines from a few numbers, as arrays of corners. Axes: N points."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Corners (N, 2): x to the right, y down."""


def polygon(*points: tuple[float, float]) -> Points:
    """Return the corners as an array."""
    return np.array(points, dtype=np.float64)


def ellipse(
    x: float,
    y: float,
    rx: float,
    ry: float,
    turn: float = 0.0,
    start: float = 0.0,
    end: float = 1.0,
) -> Points:
    """Return an ellipse, or the sector between two fractions of a turn (clockwise from the
    right).
    """
    angle_N = 2 * np.pi * np.linspace(start, end, 41)[: 40 if end - start == 1 else 41]
    cos, sin = math.cos(turn), math.sin(turn)
    dx_N, dy_N = rx * np.cos(angle_N), ry * np.sin(angle_N)
    return np.stack([x + cos * dx_N - sin * dy_N, y + sin * dx_N + cos * dy_N], axis=1)


def smooth(*points: tuple[float, float]) -> Points:
    """Return a closed Catmull-Rom curve through the points."""
    knots_N2 = polygon(*points)
    before, after, beyond = (
        np.roll(knots_N2, 1, 0),
        np.roll(knots_N2, -1, 0),
        np.roll(knots_N2, -2, 0),
    )
    pieces: list[Points] = []
    for t in np.linspace(0, 1, 8, endpoint=False):
        pieces.append(
            0.5
            * (
                2 * knots_N2
                + (after - before) * t
                + (2 * before - 5 * knots_N2 + 4 * after - beyond) * t**2
                + (3 * knots_N2 - before - 3 * after + beyond) * t**3
            )
        )
    return np.stack(pieces, axis=1).reshape(-1, 2)
