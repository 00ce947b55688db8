"""Who moves how: smooth paths, and casts of figures that stay, visit and travel in pairs.

Lengths are image heights (the image is 4/3 wide), time runs from 0 to 1 over a clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from seg_research.mini.figures import Shape
from seg_research.mini.sprites import ASPECT, Colour, Look, Pose

SMALLEST, LARGEST = 0.2, 0.34
"""Limits of a figure's diameter."""

_VISITOR_PACE = 0.16
"""Swing times turns of a visitor; its top speed is this times two pi, in image heights a clip."""


@dataclass(frozen=True, slots=True)
class Path:
    """One sine along each axis; `turns` counts its periods in a clip."""

    x: float
    y: float
    swing_x: float
    swing_y: float
    turns_x: float
    turns_y: float
    phase_x: float
    phase_y: float

    def at(self, t: float) -> tuple[float, float]:
        """Return the position at a time."""
        return (
            self.x + self.swing_x * math.sin(2 * math.pi * (self.turns_x * t + self.phase_x)),
            self.y + self.swing_y * math.sin(2 * math.pi * (self.turns_y * t + self.phase_y)),
        )

    def moved(self, dx: float, dy: float) -> Path:
        """Return the same motion beside this one."""
        return Path(
            self.x + dx,
            self.y + dy,
            self.swing_x,
            self.swing_y,
            self.turns_x,
            self.turns_y,
            self.phase_x,
            self.phase_y,
        )


@dataclass(frozen=True, slots=True)
class Actor:
    """One figure of a clip.

    Attributes:
        pair: number of the pair it travels in; None alone.
    """

    look: Look
    path: Path
    diameter: float
    sway: float
    sway_phase: float
    mirrored: bool
    pair: int | None

    def pose(self, t: float) -> Pose:
        """Return where the figure is at a time."""
        x, y = self.path.at(t)
        return Pose(
            x,
            y,
            self.diameter,
            self.sway * math.sin(2 * math.pi * (1.1 * t + self.sway_phase)),
            self.mirrored,
        )


def draw_cast(rng: np.random.Generator, colours: Sequence[Colour]) -> tuple[Actor, ...]:
    """Draw six or seven figures, back to front: a pair and two singles that stay, a pair and
    perhaps a single that come and go.
    """
    stays_and_members = [(True, 2), (True, 1), (True, 1), (False, 2), (False, 1)][
        : int(rng.integers(4, 6))
    ]
    looks = iter(_looks(rng, colours))
    extremes = iter(_extremes(rng))
    centres = _centres(rng, 3)
    edges = iter(rng.permutation(4).tolist())
    actors: list[Actor] = []
    for number, (stays, members) in enumerate(stays_and_members):
        if stays:
            path, along = _staying(rng, centres[number]), rng.uniform(0, 2 * math.pi)
        else:
            path, along = _visiting(rng, next(edges), members, centres)
        diameters = (
            [rng.uniform(0.23, 0.275) for _ in range(2)] if members == 2 else [next(extremes)]
        )
        gap = sum(diameters) / 2 * 1.04
        for side, diameter in zip((-0.5, 0.5) if members == 2 else (0.0,), diameters, strict=True):
            own_path = path.moved(side * gap * math.cos(along), side * gap * math.sin(along))
            actors.append(
                Actor(
                    look=next(looks),
                    path=own_path,
                    diameter=diameter,
                    sway=rng.uniform(0.05, 0.2),
                    sway_phase=rng.random(),
                    # Figures are drawn looking left; they face the way they drift.
                    mirrored=own_path.at(1)[0] > own_path.at(0)[0],
                    pair=number if members == 2 else None,
                )
            )
    return tuple(actors[int(i)] for i in rng.permutation(len(actors)))


def _looks(rng: np.random.Generator, colours: Sequence[Colour]) -> list[Look]:
    """Draw distinct looks from few colours and shapes, so that one word alone seldom tells figures
    apart.
    """
    some_colours = rng.permutation([c.value for c in colours])[:4]
    some_shapes = rng.permutation([s.value for s in Shape])[:5]
    every = [Look(Colour(c), Shape(s)) for c, s in product(some_colours, some_shapes)]
    return [every[i] for i in rng.permutation(len(every))]


def _extremes(rng: np.random.Generator) -> list[float]:
    """Draw diameters for three singles: now and then one is clearly the largest or the smallest of
    all.
    """
    sizes = [rng.uniform(0.24, 0.28) for _ in range(3)]
    draw = rng.random()
    if draw < 0.6:
        sizes[int(rng.integers(3))] = LARGEST if draw < 0.4 else SMALLEST
    return sizes


def _centres(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Draw places inside the image, as far apart as a few tries find them; the first gets the
    most room.
    """
    best: list[tuple[float, float]] = []
    best_gap = -1.0
    for _ in range(24):
        places = [(rng.uniform(0.26, ASPECT - 0.26), rng.uniform(0.24, 0.76)) for _ in range(count)]
        gap = min(
            math.dist(a, b) - (0.1 if a == places[0] else 0.0)
            for i, a in enumerate(places)
            for b in places[i + 1 :]
        )
        if gap > best_gap:
            best, best_gap = places, gap
    return best


def _staying(rng: np.random.Generator, centre: tuple[float, float]) -> Path:
    swing_x, swing_y = rng.uniform(0.05, 0.15), rng.uniform(0.03, 0.09)
    return Path(
        *centre,
        swing_x,
        swing_y,
        rng.uniform(0.5, 0.8),
        rng.uniform(0.5, 1.0),
        rng.random(),
        rng.random(),
    )


def _visiting(
    rng: np.random.Generator, edge: int, members: int, taken: Sequence[tuple[float, float]]
) -> tuple[Path, float]:
    """Draw a path that crosses one edge of the image (left, right, top, bottom), and the
    direction of that edge in radians.

    The phase is free: a visitor may come, go, come and go, or go and come back, and no moment of a
    clip is likelier than another.
    """
    sideways = edge < 2
    x, y = _gate(rng, edge, 0.28 if members == 2 else 0.18, taken)
    # Fast swings are short and lean inwards, so that the figure moves a few pixels a frame and is
    # seen half of the time at least.
    turns = rng.uniform(0.4, 0.85)
    swing = min(0.28, _VISITOR_PACE / turns)
    inwards = (0.28 - swing + rng.uniform(-0.03, 0.03)) * (-1 if edge % 2 else 1)
    across = swing, turns, rng.random()
    beside = rng.uniform(0.02, 0.08), rng.uniform(0.4, 0.7), rng.random()
    (swing_x, turns_x, phase_x), (swing_y, turns_y, phase_y) = (
        (across, beside) if sideways else (beside, across)
    )
    x, y = (x + inwards, y) if sideways else (x, y + inwards)
    return Path(
        x, y, swing_x, swing_y, turns_x, turns_y, phase_x, phase_y
    ), math.pi / 2 if sideways else 0.0


def _gate(
    rng: np.random.Generator, edge: int, margin: float, taken: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Draw a place on an edge, off the corners; of a few, the one farthest from everybody who
    stays.
    """
    places: list[tuple[float, float]] = []
    for _ in range(5):
        if edge < 2:
            places.append((ASPECT * (edge % 2), rng.uniform(margin, 1 - margin)))
        else:
            places.append((rng.uniform(margin, ASPECT - margin), float(edge % 2)))
    return max(places, key=lambda place: min(math.dist(place, centre) for centre in taken))
