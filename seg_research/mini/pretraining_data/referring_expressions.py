"""Roundabout ways to name a figure of a clip, as questions have them, and the clue that an expert
notes for each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from seg_research.mini.pretraining_data.clips import Clip

_LARGER, _SMALLER = 1.2, 1.1


@dataclass(frozen=True, slots=True)
class ReferringExpression:
    """A expression to name a figure.

    Attributes:
        words: as a question says it; `{anchor}` stands for the figure it is named through.
        clue: as `Question.clue`.
        target: index of the figure.
        anchor: index of the figure it is named through; the target where there is none.
    """

    words: str
    clue: str
    target: int
    anchor: int


def relational_expressions(clip: Clip) -> list[ReferringExpression]:
    """Return the ways to name a figure through another."""
    colours, shapes = [look.colour for look in clip.looks], [look.shape for look in clip.looks]
    found: list[ReferringExpression] = []
    seen = set(clip.ever_seen())
    for anchor, look in enumerate(clip.looks):
        for words, trait, clue in (
            ("the other thing with the colour of the {anchor}", colours, f"other {look.colour}"),
            ("the other thing with the shape of the {anchor}", shapes, f"other {look.shape}"),
            ("the thing that travels with the {anchor}", clip.pairs, f"with {look.words}"),
        ):
            same = [
                n for n, value in enumerate(trait) if value is not None and value == trait[anchor]
            ]
            found += [
                ReferringExpression(words, clue, n, anchor)
                for n in same
                if n != anchor and n in seen and len(same) == 2
            ]
    return found


def direct_expressions(clip: Clip) -> list[ReferringExpression]:
    """Return the ways to name a figure by its own look."""
    colours, shapes = (
        Counter(look.colour for look in clip.looks),
        Counter(look.shape for look in clip.looks),
    )
    order = np.argsort(clip.diameters)
    largest, smallest = int(order[-1]), int(order[0])
    found: list[ReferringExpression] = []
    for n in clip.ever_seen():
        look = clip.looks[n]
        found.append(ReferringExpression(f"the {look.words}", "", n, n))
        if colours[look.colour] == 1:
            found.append(
                ReferringExpression(f"the only {look.colour} thing", f"only {look.colour}", n, n)
            )
        if shapes[look.shape] == 1:
            found.append(ReferringExpression(f"the only {look.shape}", f"only {look.shape}", n, n))
        if n == largest and clip.diameters[n] > _LARGER * clip.diameters[int(order[-2])]:
            found += [ReferringExpression("the largest thing", "largest", n, n)] * 2
        if n == smallest and clip.diameters[n] * _SMALLER < clip.diameters[int(order[1])]:
            found += [ReferringExpression("the smallest thing", "smallest", n, n)] * 2
    return found
