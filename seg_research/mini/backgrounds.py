"""Places for a world to happen in: eight textured scenes, kept muted so that the figures stand out.

Each scene says which figure colours would drown in it. Axes: H, W image; C colour channel.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_research.core.geometry import ImageSize
from seg_research.mini.figures import Rgb
from seg_research.mini.sprites import Colour

Image = NDArray[np.float32]
# drawn at twice the size of a frame, then shrunk: edges come out smooth
_HEIGHT_PX, _WIDTH_PX = 480, 640


class Background(StrEnum):
    """Kinds of scene."""

    MEADOW = "meadow"
    NIGHT = "night"
    SEA = "sea"
    DUNES = "dunes"
    SNOW = "snow"
    DUSK = "dusk"
    SLATE = "slate"
    LINEN = "linen"


CLASHES: dict[Background, frozenset[Colour]] = {
    Background.MEADOW: frozenset({Colour.GREEN}),
    Background.NIGHT: frozenset({Colour.BLUE, Colour.PURPLE}),
    Background.SEA: frozenset({Colour.BLUE, Colour.GREEN}),
    Background.DUNES: frozenset({Colour.ORANGE, Colour.YELLOW}),
    Background.SNOW: frozenset(),
    Background.DUSK: frozenset({Colour.PURPLE, Colour.PINK}),
    Background.SLATE: frozenset({Colour.PURPLE}),
    Background.LINEN: frozenset({Colour.YELLOW, Colour.ORANGE}),
}


def draw_background(kind: Background, rng: np.random.Generator, size: ImageSize) -> Image:
    """Paint a scene as float RGB in 0..255, (H, W, 3)."""
    scene_HWC = _SCENES[kind](rng)
    shrunk_HWC = cv2.resize(
        scene_HWC, (size.width_px, size.height_px), interpolation=cv2.INTER_AREA
    )
    return shrunk_HWC.clip(0, 255)


def _gradient(*stops: tuple[float, Rgb]) -> Image:
    """Blend colours from top to bottom; stops are fractions of the height."""
    y_H = np.linspace(0, 1, _HEIGHT_PX)
    places = [place for place, _ in stops]
    column_HC = np.stack(
        [np.interp(y_H, places, [colour[c] for _, colour in stops]) for c in range(3)], axis=1
    )
    return np.repeat(column_HC[:, None, :], _WIDTH_PX, axis=1).astype(np.float32)


def _noise(rng: np.random.Generator, cells: int, octaves: int = 4, stretch: float = 1.0) -> Image:
    """Return smooth noise of about unit spread; `stretch` > 1 draws it out sideways."""
    total_HW = np.zeros((_HEIGHT_PX, _WIDTH_PX), np.float32)
    for octave in range(octaves):
        rows = cells * 2**octave
        columns = max(2, round(rows * _WIDTH_PX / _HEIGHT_PX / stretch))
        grid = rng.standard_normal((rows + 1, columns + 1)).astype(np.float32)
        total_HW += (
            cv2.resize(grid, (_WIDTH_PX, _HEIGHT_PX), interpolation=cv2.INTER_CUBIC) / 1.8**octave
        ).astype(np.float32)
    return total_HW


def _ridge(
    rng: np.random.Generator, height: float, swing: float, waves: float
) -> NDArray[np.float64]:
    """Return a rolling horizon: y in pixels for every column."""
    x_W = np.linspace(0, 1, _WIDTH_PX)
    line_W = (
        np.sin(2 * np.pi * (waves * x_W + rng.random()))
        + np.sin(2 * np.pi * (2.3 * waves * x_W + rng.random())) / 2.3
    )
    return (height + swing * line_W) * _HEIGHT_PX


def _fill_below(
    image_HWC: Image,
    ridge_W: NDArray[np.float64],
    top: Rgb,
    bottom: Rgb,
    texture_HW: Image | None = None,
) -> None:
    """Cover everything under a horizon with a colour that changes downwards, in place."""
    y_HW = np.arange(_HEIGHT_PX, dtype=np.float32)[:, None] - ridge_W.astype(np.float32)[None, :]
    depth_HW = np.clip(y_HW / (0.45 * _HEIGHT_PX), 0, 1)[..., None]
    land_HWC = np.array(top, np.float32) * (1 - depth_HW) + np.array(bottom, np.float32) * depth_HW
    if texture_HW is not None:
        land_HWC = land_HWC + texture_HW[..., None]
    np.copyto(image_HWC, land_HWC, where=(y_HW > 0)[..., None])


def _glow(
    image_HWC: Image, x: float, y: float, radius: float, colour: Rgb, strength: float
) -> None:
    """Add a soft light around a point given in fractions of the height, in place."""
    y_HW, x_HW = np.mgrid[0:_HEIGHT_PX, 0:_WIDTH_PX].astype(np.float32) / _HEIGHT_PX
    weight_HW = strength * np.exp(-((x_HW - x) ** 2 + (y_HW - y) ** 2) / (2 * radius**2))
    image_HWC += weight_HW[..., None] * (np.array(colour, np.float32) - image_HWC)


def _disc(image_HWC: Image, x: float, y: float, radius: float, colour: Rgb) -> None:
    centre = (round(x * _HEIGHT_PX * 16), round(y * _HEIGHT_PX * 16))
    cv2.circle(image_HWC, centre, round(radius * _HEIGHT_PX * 16), colour, -1, cv2.LINE_AA, 4)


def _meadow(rng: np.random.Generator) -> Image:
    image_HWC = _gradient((0, (176, 206, 222)), (0.5, (226, 232, 218)), (1, (226, 232, 218)))
    image_HWC += 9 * np.maximum(_noise(rng, 3, 4, 2.5), 0)[..., None]
    grass_HW = 5 * _noise(rng, 40, 2)
    _fill_below(image_HWC, _ridge(rng, 0.40, 0.035, 1.1), (158, 184, 156), (150, 180, 146))
    _fill_below(
        image_HWC, _ridge(rng, 0.54, 0.03, 0.8), (146, 176, 130), (134, 166, 116), 0.6 * grass_HW
    )
    _fill_below(image_HWC, _ridge(rng, 0.70, 0.025, 0.6), (132, 166, 108), (104, 142, 86), grass_HW)
    for _ in range(70):
        y = rng.uniform(0.76, 0.99)
        _disc(image_HWC, rng.uniform(0, 4 / 3), y, 0.003 + 0.007 * (y - 0.7), (240, 240, 228))
    return image_HWC


def _night(rng: np.random.Generator) -> Image:
    image_HWC = _gradient((0, (46, 56, 104)), (0.55, (80, 90, 146)), (1, (124, 126, 170)))
    image_HWC += 7 * _noise(rng, 3)[..., None]
    x, y = rng.uniform(0.15, 1.2), rng.uniform(0.12, 0.3)
    _glow(image_HWC, x, y, 0.16, (176, 182, 214), 0.6)
    _disc(image_HWC, x, y, 0.055, (240, 238, 220))
    _disc(image_HWC, x + 0.022, y - 0.012, 0.047, (132, 140, 184))
    for _ in range(150):
        shade = int(rng.uniform(150, 245))
        _disc(
            image_HWC,
            rng.uniform(0, 4 / 3),
            rng.uniform(0, 0.75),
            rng.uniform(0.0012, 0.004),
            (shade, shade, min(255, shade + 12)),
        )
    _fill_below(image_HWC, _ridge(rng, 0.78, 0.04, 1.0), (66, 72, 112), (58, 64, 102))
    _fill_below(image_HWC, _ridge(rng, 0.89, 0.03, 0.7), (50, 56, 92), (42, 48, 82))
    return image_HWC


def _sea(rng: np.random.Generator) -> Image:
    image_HWC = _gradient((0, (206, 220, 224)), (0.28, (232, 228, 214)), (1, (232, 228, 214)))
    image_HWC += 8 * np.maximum(_noise(rng, 3, 4, 3), 0)[..., None]
    waves_HW = (
        np.linspace(0.3, 1, _HEIGHT_PX, dtype=np.float32)[:, None] * 8 * _noise(rng, 14, 3, 7)
    )
    flat_W = np.full(_WIDTH_PX, 0.3 * _HEIGHT_PX)
    _fill_below(image_HWC, flat_W, (142, 180, 188), (86, 136, 152), waves_HW)
    _glow(image_HWC, rng.uniform(0.2, 1.1), 0.3, 0.14, (250, 240, 214), 0.5)
    return image_HWC


def _dunes(rng: np.random.Generator) -> Image:
    image_HWC = _gradient((0, (186, 210, 222)), (0.45, (236, 226, 208)), (1, (236, 226, 208)))
    _glow(image_HWC, rng.uniform(0.2, 1.1), 0.15, 0.1, (255, 248, 228), 0.9)
    y_H = np.arange(_HEIGHT_PX, dtype=np.float32)[:, None]
    ripples_HW = 5 * np.sin(y_H / 4.2 + 3 * _noise(rng, 4, 3)).astype(np.float32)
    _fill_below(image_HWC, _ridge(rng, 0.42, 0.05, 0.7), (222, 200, 168), (210, 184, 150))
    _fill_below(
        image_HWC, _ridge(rng, 0.56, 0.06, 0.6), (214, 186, 148), (198, 168, 130), ripples_HW
    )
    _fill_below(
        image_HWC, _ridge(rng, 0.76, 0.05, 0.5), (202, 172, 134), (180, 148, 112), 1.4 * ripples_HW
    )
    return image_HWC


def _snow(rng: np.random.Generator) -> Image:
    image_HWC = _gradient((0, (168, 184, 204)), (0.5, (214, 222, 230)), (1, (214, 222, 230)))
    image_HWC += 6 * _noise(rng, 3, 4, 2)[..., None]
    ridge_W = _ridge(rng, 0.5, 0.04, 0.9)
    for _ in range(26):
        column = int(rng.integers(0, _WIDTH_PX))
        foot, tall = ridge_W[column] + 10, rng.uniform(28, 64)
        tree = np.array(
            [(column - 0.27 * tall, foot), (column, foot - tall), (column + 0.27 * tall, foot)]
        )
        shade = int(rng.uniform(112, 146))
        cv2.fillPoly(
            image_HWC,
            [np.round(tree * 16).astype(np.int32)],
            (shade, shade + 12, shade + 24),
            cv2.LINE_AA,
            4,
        )
    soft_HW = 3 * _noise(rng, 5, 4, 2)
    _fill_below(image_HWC, ridge_W, (228, 234, 240), (216, 224, 234), soft_HW)
    _fill_below(image_HWC, _ridge(rng, 0.74, 0.04, 0.6), (240, 243, 246), (222, 229, 238), soft_HW)
    for _ in range(90):
        _disc(
            image_HWC,
            rng.uniform(0, 4 / 3),
            rng.uniform(0, 1),
            rng.uniform(0.002, 0.006),
            (252, 253, 255),
        )
    return image_HWC


def _dusk(rng: np.random.Generator) -> Image:
    image_HWC = _gradient(
        (0, (92, 88, 124)), (0.45, (176, 140, 148)), (0.8, (226, 188, 164)), (1, (226, 188, 164))
    )
    image_HWC += 7 * _noise(rng, 3, 4, 4)[..., None]
    for depth, shade in ((0, (138, 116, 138)), (1, (112, 98, 126)), (2, (88, 82, 112))):
        x = -rng.uniform(0, 40)
        while x < _WIDTH_PX:
            width = rng.uniform(34, 74)
            top = (0.58 + 0.1 * depth + rng.uniform(-0.09, 0.09)) * _HEIGHT_PX
            cv2.rectangle(
                image_HWC, (round(x), round(top)), (round(x + width), _HEIGHT_PX), shade, -1
            )
            _windows(image_HWC, rng, x, top, width, 0.10 + 0.08 * depth)
            x += width + rng.uniform(-2, 10)
    return image_HWC


def _windows(
    image_HWC: Image, rng: np.random.Generator, x: float, top: float, width: float, share: float
) -> None:
    for window_y in np.arange(top + 8, _HEIGHT_PX, 15):
        for window_x in np.arange(x + 7, x + width - 9, 12):
            if rng.random() < share:
                corner = (round(window_x), round(window_y))
                cv2.rectangle(
                    image_HWC, corner, (corner[0] + 4, corner[1] + 6), (236, 206, 150), -1
                )


def _slate(rng: np.random.Generator) -> Image:
    base, tint = (
        ((104, 116, 122), (132, 140, 140))
        if rng.random() < 0.5
        else ((168, 160, 150), (192, 186, 178))
    )
    blend_HWC = np.clip(0.5 + 0.32 * _noise(rng, 3, 5), 0, 1).astype(np.float32)[..., None]
    image_HWC = (
        np.array(base, np.float32) * (1 - blend_HWC) + np.array(tint, np.float32) * blend_HWC
    )
    return _vignette((image_HWC + 2.5 * _noise(rng, 60, 2)[..., None]).astype(np.float32))


def _linen(rng: np.random.Generator) -> Image:
    image_HWC = _gradient((0, (226, 218, 202)), (1, (204, 196, 184)))
    weave_HW = _noise(rng, 120, 1, 24) + cv2.resize(_noise(rng, 5, 1), (_WIDTH_PX, _HEIGHT_PX))
    threads = rng.standard_normal((1, _WIDTH_PX // 3)).astype(np.float32)
    weave_HW += cv2.resize(threads, (_WIDTH_PX, 1), interpolation=cv2.INTER_LINEAR)
    image_HWC += 3.5 * weave_HW[..., None]
    return _vignette(image_HWC)


def _vignette(image_HWC: Image) -> Image:
    y_HW, x_HW = np.mgrid[-1 : 1 : _HEIGHT_PX * 1j, -1 : 1 : _WIDTH_PX * 1j].astype(np.float32)
    return image_HWC * (1.03 - 0.14 * (x_HW**2 + y_HW**2))[..., None]


_SCENES: dict[Background, Callable[[np.random.Generator], Image]] = {
    Background.MEADOW: _meadow,
    Background.NIGHT: _night,
    Background.SEA: _sea,
    Background.DUNES: _dunes,
    Background.SNOW: _snow,
    Background.DUSK: _dusk,
    Background.SLATE: _slate,
    Background.LINEN: _linen,
}
