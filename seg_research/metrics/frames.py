"""The one gate of every metric: two videos of masks, checked and handed on frame by frame. Axes: T
frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_common.errors import UsageError
from seg_research.core.masks import Mask

MasksLike: TypeAlias = NDArray[np.bool_] | NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
"""Any numeric array; non-zero is foreground."""


def paired_frames(
    truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None = None
) -> Iterator[tuple[Mask, Mask]]:
    """Give (truth, prediction) of every frame as booleans (H, W), void pixels cut out of both.

    Raises:
        UsageError: the shapes differ, are not (T, H, W) or hold no pixel; an array is not numeric
            or holds NaN.
    """
    named = {"truth": truth_THW, "prediction": prediction_THW} | (
        {} if void_THW is None else {"void": void_THW}
    )
    shapes = {name: masks.shape for name, masks in named.items()}
    if len(set(shapes.values())) != 1 or len(shapes["truth"]) != 3:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(
            f"masks have the shapes {listed}; expected one shape (T, H, W) for all, a single image "
            "as (1, H, W)"
        )
    if 0 in shapes["truth"]:
        raise UsageError(
            f"masks have the shape {shapes['truth']}: nothing to judge; expected at least one frame"
            " and one pixel"
        )
    for t in range(len(truth_THW)):
        frame = {name: _foreground(masks[t], name, t) for name, masks in named.items()}
        kept_HW = ~frame["void"] if void_THW is not None else None
        truth_HW, prediction_HW = frame["truth"], frame["prediction"]
        yield (
            (truth_HW, prediction_HW)
            if kept_HW is None
            else (truth_HW & kept_HW, prediction_HW & kept_HW)
        )


def _foreground(values_HW: NDArray[Any], name: str, t: int) -> Mask:
    if values_HW.dtype.kind not in "biuf":
        raise UsageError(
            f"{name}: masks of type {values_HW.dtype}; expected booleans or numbers, non-zero for "
            "foreground"
        )
    if values_HW.dtype.kind == "f" and np.isnan(values_HW).any():
        raise UsageError(
            f"{name}: frame {t} holds NaN, which is neither foreground nor background; threshold "
            "the scores first"
        )
    return values_HW.astype(np.bool_, copy=False)
