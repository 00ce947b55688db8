"""How far a score would move with other questions: the percentile bootstrap over targets.

Questions about one target share its masks and fail together, so whole targets are drawn, with all
their questions. Drawing questions one by one would take them for independent and give intervals
that are too narrow. Axes: C targets, G groups, M measures, B draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seg_research.core.seeding import derive_seed

NUM_DRAWS = 2000
LEVEL = 0.95

Floats = NDArray[np.float64]

_MAX_CELLS = 250_000


def interval(
    numerators_CGM: Floats, denominators_CGM: Floats, score: Callable[[Floats, Floats], Floats]
) -> tuple[Floats, Floats]:
    """Return the lower and upper end of the 95 % interval of every score; draws in which a score is
    not defined (NaN) are left out.

    Args:
        numerators_CGM: sums over the samples of a target.
        denominators_CGM: what they will be divided by.
        score: turns sums over targets (B, G, M) of both into scores (B, …).
    """
    num_targets = len(numerators_CGM)
    rng = np.random.default_rng(derive_seed(0, "bootstrap"))
    draws: list[Floats] = []
    step = max(1, min(NUM_DRAWS, _MAX_CELLS // num_targets))
    for start in range(0, NUM_DRAWS, step):
        drawn_BC = rng.multinomial(
            num_targets, np.full(num_targets, 1 / num_targets), size=min(step, NUM_DRAWS - start)
        ).astype(np.float64)
        draws.append(
            score(
                np.tensordot(drawn_BC, numerators_CGM, 1),
                np.tensordot(drawn_BC, denominators_CGM, 1),
            )
        )
    low, high = np.nanpercentile(
        np.concatenate(draws), [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0
    )
    return low, high
