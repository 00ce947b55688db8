"""Boundary accuracy F: precision and recall of one-pixel outlines, matched within a small distance. Axes: T frames, H rows, W columns.

A row of pixels is kept as 64-bit words (bit i of word k is column 64k + i), so that the outlines and their dilation by an exact disk are
a few dozen word operations instead of a convolution. `packed_HK` has K words a row; bits beyond the image are 0.
"""

from __future__ import annotations

from math import ceil, hypot, isqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_research.metrics.region import MasksLike, check_masks

BOUND_TH = 0.008
"""Matching distance as a share of the image diagonal."""

Packed: TypeAlias = NDArray[np.uint64]

_WORD = 64


def boundary_f(truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None = None) -> NDArray[np.float64]:
    """Return F of every frame, (T,), in [0, 1]; 1 where neither mask has an outline, 0 where only one has.

    A mask that fills the image has no outline. Void pixels are taken out of both masks before their outlines are drawn.

    Args:
        truth_THW: ground truth.
        prediction_THW: what is judged.
        void_THW: pixels that count neither way.

    Raises:
        UsageError: the shapes differ or are not (T, H, W).

    Source: DAVIS-2017, contour accuracy.
    """
    truth, prediction, void = check_masks(truth_THW, prediction_THW, void_THW)
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    radius_px = ceil(BOUND_TH * hypot(*truth.shape[1:]))
    return np.array([_frame_f(t_HW, p_HW, radius_px) for t_HW, p_HW in zip(truth, prediction, strict=True)], np.float64)


def _frame_f(truth_HW: NDArray[np.bool_], prediction_HW: NDArray[np.bool_], radius_px: int) -> float:
    width_px = truth_HW.shape[1]
    truth_HK, prediction_HK = _pack(truth_HW), _pack(prediction_HW)
    used_rows = np.flatnonzero((truth_HK | prediction_HK).any(axis=1))
    if used_rows.size == 0:
        return 1.0
    # An outline reaches one row above its mask; outside these rows there is nothing to match.
    rows = slice(max(int(used_rows[0]) - 1, 0), int(used_rows[-1]) + 2)
    truth_edge_HK, prediction_edge_HK = _outline(truth_HK[rows], width_px), _outline(prediction_HK[rows], width_px)
    num_truth, num_prediction = _count(truth_edge_HK), _count(prediction_edge_HK)
    if num_truth == 0 or num_prediction == 0:
        return float(num_truth == num_prediction)
    precision = _count(prediction_edge_HK & _dilate(truth_edge_HK, radius_px)) / num_prediction
    recall = _count(truth_edge_HK & _dilate(prediction_edge_HK, radius_px)) / num_truth
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _pack(mask_HW: NDArray[np.bool_]) -> Packed:
    height_px, width_px = mask_HW.shape
    packed = np.zeros((height_px, -(-width_px // _WORD) * 8), np.uint8)
    packed[:, : -(-width_px // 8)] = np.packbits(mask_HW, axis=1, bitorder="little")
    return packed.view("<u8")


def _outline(packed_HK: Packed, width_px: int) -> Packed:
    """Mark pixels that differ from their right, lower or lower-right neighbour; the image continues its last row and column."""
    last_column = np.uint64(1 << (width_px - 1) % _WORD)
    right_HK = _shift_left(packed_HK, 1)
    right_HK[:, -1] |= packed_HK[:, -1] & last_column
    edge_HK = packed_HK ^ right_HK
    edge_HK[:-1] |= (packed_HK[:-1] ^ packed_HK[1:]) | (packed_HK[:-1] ^ right_HK[1:])
    return edge_HK


def _dilate(packed_HK: Packed, radius_px: int) -> Packed:
    """Mark every pixel at most `radius_px` (Euclidean) from a marked one; columns beyond the image may be marked too.

    The disk is read row by row from its tip: at height dy it reaches isqrt(r² - dy²) pixels to each side, and this only grows.
    """
    num_rows = len(packed_HK)
    result_HK = np.zeros_like(packed_HK)
    span_HK, half_width = packed_HK, 0
    for dy in range(radius_px, -1, -1):
        wanted = isqrt(radius_px**2 - dy**2)
        while half_width < wanted:
            # Three copies leave no gap only while the step is at most one span long.
            step = min(wanted - half_width, 2 * half_width + 1, _WORD - 1)
            span_HK = span_HK | _shift_left(span_HK, step) | _shift_right(span_HK, step)
            half_width += step
        if dy == 0:
            result_HK |= span_HK
        elif dy < num_rows:
            result_HK[dy:] |= span_HK[:-dy]
            result_HK[:-dy] |= span_HK[dy:]
    return result_HK


def _shift_left(packed_HK: Packed, by_px: int) -> Packed:
    """Move every pixel to smaller columns, 1..63 of them."""
    shifted_HK = packed_HK >> np.uint64(by_px)
    shifted_HK[:, :-1] |= packed_HK[:, 1:] << np.uint64(_WORD - by_px)
    return shifted_HK


def _shift_right(packed_HK: Packed, by_px: int) -> Packed:
    """Move every pixel to larger columns, 1..63 of them."""
    shifted_HK = packed_HK << np.uint64(by_px)
    shifted_HK[:, 1:] |= packed_HK[:, :-1] >> np.uint64(_WORD - by_px)
    return shifted_HK


def _count(packed_HK: Packed) -> int:
    return int.from_bytes(packed_HK.tobytes(), "little").bit_count()
