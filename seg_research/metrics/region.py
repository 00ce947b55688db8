"""Region similarity J: intersection over union of masks. Axes: T frames, H rows, W columns."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_research.core.errors import UsageError

MasksLike: TypeAlias = NDArray[np.bool_] | NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
"""Any numeric array; non-zero is foreground."""


def jaccard(truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None = None) -> NDArray[np.float64]:
    """Return J of every frame, (T,), in [0, 1]; 1 where both masks are empty.

    Args:
        truth_THW: ground truth.
        prediction_THW: what is judged.
        void_THW: pixels that count neither way.

    Raises:
        UsageError: the shapes differ or are not (T, H, W).

    Source: DAVIS-2017, region similarity.
    """
    truth, prediction, void = check_masks(truth_THW, prediction_THW, void_THW)
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    scores = np.ones(len(truth))
    for t, (truth_HW, prediction_HW) in enumerate(zip(truth, prediction, strict=True)):
        num_either = np.count_nonzero(truth_HW | prediction_HW)
        if num_either:
            scores[t] = np.count_nonzero(truth_HW & prediction_HW) / num_either
    return scores


def check_masks(
    truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Return the masks as booleans.

    Raises:
        UsageError: the shapes differ or are not (T, H, W).
    """
    shapes = {mask.shape for mask in (truth_THW, prediction_THW, void_THW) if mask is not None}
    if len(shapes) != 1 or truth_THW.ndim != 3:
        listed = ", ".join(map(str, sorted(shapes)))
        raise UsageError(f"masks have shapes {listed}; expected one shape (T, H, W) for truth, prediction and void")
    void = None if void_THW is None else void_THW.astype(np.bool_, copy=False)
    return truth_THW.astype(np.bool_, copy=False), prediction_THW.astype(np.bool_, copy=False), void
