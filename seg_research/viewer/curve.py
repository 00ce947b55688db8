"""Learning curves: from `curve.jsonl` to lines a browser can draw at any width.

Lines live in a box of 1000 × 1000 that the page stretches; labels are placed by percentage, so that
text keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

SIDE = 1000
MAX_POINTS = 300
MAX_TERMS = 12
SMOOTH_FROM_POINTS = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis, `at_percent` from the left or from the top."""

    at_percent: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One line over training steps.

    Attributes:
        line: SVG path through every value.
        trend: SVG path of the moving mean; empty for short curves.
        area: the line (or trend) closed along the bottom edge.
        first, last: mean of the first and of the last tenth of the values (at least one), as shown.
        samples: [x percent, y percent, text] of every point, for the pointer.
    """

    label: str
    line: str
    trend: str
    area: str
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    first: str
    last: str
    samples: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one quantity by step; steps ascend, gaps are simply absent.

    Attributes:
        percent: values are fractions, shown as per cent between 0 and 1.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    percent: bool = False


def read_series(records: Iterable[Mapping[str, Any]]) -> tuple[list[Series], list[Series]]:
    """Collect the main series (reward, searches, validity) and one series a reward term; what is
    not a finite number is a gap.

    A step that stands twice, as after a resumed run, counts as its last line says.
    """
    numbered = {
        step: record for record in records if (step := _number(record.get("step"))) is not None
    }
    rows = [(step, numbered[step]) for step in sorted(numbered)]
    main = [
        Series("mean reward", _points((step, row.get("reward")) for step, row in rows)),
        Series("searches per episode", _points((step, row.get("searches")) for step, row in rows)),
        Series(
            "well-formed episodes",
            _points((step, row.get("valid")) for step, row in rows),
            percent=True,
        ),
    ]
    names = list(dict.fromkeys(chain.from_iterable(_terms(row) for _, row in rows)))[:MAX_TERMS]
    terms = [
        Series(name, _points((step, _terms(row).get(name)) for step, row in rows)) for name in names
    ]
    return [s for s in main if s.points], [s for s in terms if s.points]


def draw(series: Series) -> Chart:
    """Lay one series out; long ones are thinned to means of neighbouring steps."""
    points = _thinned(series.points)
    low, high, y_ticks = _y_axis([y for _, y in points], percent=series.percent)
    first_step, last_step = points[0][0], points[-1][0]

    def place(step: float, value: float) -> tuple[float, float]:
        x = (step - first_step) / (last_step - first_step) if last_step > first_step else 0.5
        return SIDE * x, SIDE * (1 - (value - low) / (high - low))

    placed = [place(x, y) for x, y in points]
    smooth = _moving_mean([y for _, y in points]) if len(points) >= SMOOTH_FROM_POINTS else []
    trend = [place(x, y) for (x, _), y in zip(points, smooth, strict=False)]
    outline = trend or placed
    tenth = max(1, len(series.points) // 10)
    values = [y for _, y in series.points]
    return Chart(
        label=series.label,
        line=_path(placed),
        trend=_path(trend),
        area=f"{_path(outline)}L{outline[-1][0]:.1f} {SIDE}L{outline[0][0]:.1f} {SIDE}Z",
        y_ticks=tuple(Tick(place(first_step, y)[1] * 100 / SIDE, label) for y, label in y_ticks),
        x_ticks=_x_axis(first_step, last_step),
        first=format_value(sum(values[:tenth]) / tenth, percent=series.percent),
        last=format_value(sum(values[-tenth:]) / tenth, percent=series.percent),
        samples=tuple(
            (
                round(px * 100 / SIDE, 2),
                round(py * 100 / SIDE, 2),
                f"step {_plain(x)}: {format_value(y, percent=series.percent)}",
            )
            for (px, py), (x, y) in zip(placed, points, strict=True)
        ),
    )


def format_value(value: float, *, percent: bool = False) -> str:
    """Write a number the way the page shows it: three significant digits or so, fractions as per
    cent where asked.
    """
    if percent:
        return f"{100 * value:.0f} %"
    return (
        f"{value:.2f}"
        if abs(value) < 10
        else f"{value:.1f}"
        if abs(value) < 1000
        else f"{value:.3g}"
    )


def _terms(row: Mapping[str, Any]) -> Mapping[str, Any]:
    terms = row.get("terms")
    return cast("Mapping[str, Any]", terms) if isinstance(terms, Mapping) else {}


def _points(pairs: Iterable[tuple[float, Any]]) -> tuple[tuple[float, float], ...]:
    return tuple((step, number) for step, value in pairs if (number := _number(value)) is not None)


def _number(value: Any) -> float | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or abs(value) > 1e12
        or not math.isfinite(value)
    ):
        return None
    return float(value)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    width = math.ceil(len(points) / MAX_POINTS)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def _moving_mean(values: Sequence[float]) -> list[float]:
    """Mean of each value with its neighbours, a tenth of the curve to either side, fewer at the
    ends.
    """
    reach = max(1, len(values) // 10)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _path(placed: Sequence[tuple[float, float]]) -> str:
    if not placed:
        return ""
    # A lone point becomes a line of no length, which round caps turn into a dot.
    tail = placed[1:] or placed
    return f"M{placed[0][0]:.1f} {placed[0][1]:.1f}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in tail)


def _y_axis(
    values: Sequence[float], *, percent: bool
) -> tuple[float, float, list[tuple[float, str]]]:
    """Return bottom, top and labelled values; fractions span 0 to 1, everything else includes 0."""
    if percent and all(0 <= v <= 1 for v in values):
        return 0.0, 1.0, [(v, f"{100 * v:.0f} %") for v in (0.0, 0.5, 1.0)]
    low, high = min(0.0, *values), max(0.0, *values)
    span = high - low if high - low > 1e-9 else 1.0
    gap = _round_gap(span / 4)
    decimals = max(0, -math.floor(math.log10(gap)))
    ticks = range(math.ceil(low / gap - 1e-9), math.floor((low + span) / gap + 1e-9) + 1)
    headroom = span / 16
    return (
        low - (headroom if low < 0 else 0),
        low + span + headroom,
        [(i * gap, f"{i * gap:.{decimals}f}") for i in ticks],
    )


def _x_axis(first: float, last: float) -> tuple[Tick, ...]:
    if last <= first:
        return (Tick(50.0, _plain(first)),)
    gap = max(1.0, _round_gap((last - first) / 5))
    inner = [i * gap for i in range(math.ceil(first / gap), math.floor(last / gap) + 1)]
    return tuple(Tick(100 * (x - first) / (last - first), _plain(x)) for x in inner)


def _round_gap(rough: float) -> float:
    """Return the next number of the series …, 0.1, 0.2, 0.5, 1, 2, 5, … that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _plain(step: float) -> str:
    return str(round(step)) if step == round(step) else f"{step:.1f}"
