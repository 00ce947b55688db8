"""Boundary accuracy F: precision and recall of one-pixel outlines, matched within a small distance.
Axes: T frames, H rows, W columns.

A row of pixels is kept as 64-bit words (bit i of word k is column 64k + i), so that outlines and
their dilation by an exact disk are a few dozen word operations instead of a convolution, whatever
the masks look like. The outlines of truth and prediction travel together as `*_NHK` (N = 2, K words
a row); empty words at the end of each row keep what is shifted out of a row from reaching the next
one, so that a shift may treat the whole array as one line of bits.
"""

from __future__ import annotations

from math import ceil, isqrt, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_research.core.masks import Mask
from seg_research.metrics.frames import MasksLike, paired_frames

BOUND_TH = 0.008
"""Matching distance as a share of the image diagonal."""

Packed: TypeAlias = NDArray[np.uint64]

_WORD = 64


def boundary_f(
    truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None = None
) -> NDArray[np.float64]:
    """Return F of every frame, (T,), in [0, 1]; 1 where neither mask has an outline, 0 where only
    one has.

    A mask that fills the image has no outline. Void pixels are taken out of both masks before their
    outlines are drawn.

    Args:
        truth_THW: ground truth.
        prediction_THW: what is judged.
        void_THW: pixels that count neither way.

    Raises:
        UsageError: see `paired_frames`.

    Source: DAVIS-2017, contour accuracy.
    """
    return np.array(
        [_frame_f(*pair_HW) for pair_HW in paired_frames(truth_THW, prediction_THW, void_THW)],
        np.float64,
    )


def _frame_f(truth_HW: Mask, prediction_HW: Mask) -> float:
    height_px, width_px = truth_HW.shape
    radius_px = ceil(BOUND_TH * sqrt(height_px**2 + width_px**2))
    edges_NHK = _outlines(
        _pack(truth_HW, prediction_HW), width_px, num_spare_words=-(-radius_px // _WORD)
    )
    num_truth, num_prediction = _count(edges_NHK)
    if num_truth == 0 or num_prediction == 0:
        return float(num_truth == num_prediction)
    num_truth_matched, num_prediction_matched = _count(
        edges_NHK & _dilate(edges_NHK, radius_px)[::-1]
    )
    precision, recall = num_prediction_matched / num_prediction, num_truth_matched / num_truth
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _pack(*masks_HW: Mask) -> Packed:
    height_px, width_px = masks_HW[0].shape
    bytes_NHB = np.zeros((len(masks_HW), height_px, -(-width_px // _WORD) * 8), np.uint8)
    for n, mask_HW in enumerate(masks_HW):
        bytes_NHB[n, :, : -(-width_px // 8)] = np.packbits(mask_HW, axis=1, bitorder="little")
    return bytes_NHB.view("<u8")


def _outlines(masks_NHK: Packed, width_px: int, num_spare_words: int) -> Packed:
    """Mark pixels that differ from their right, lower or lower-right neighbour; the image continues
    its last row and column.

    Only the part of the image that holds outlines comes back, with empty words appended to each
    row.
    """
    used_HK = masks_NHK.any(axis=0)
    rows, words = np.flatnonzero(used_HK.any(axis=-1)), np.flatnonzero(used_HK.any(axis=0))
    if rows.size == 0:
        return np.zeros((len(masks_NHK), 0, 0), np.uint64)
    # An outline reaches one row above and one column before its mask, which may be the last of
    # another word.
    top, first = max(int(rows[0]) - 1, 0), max(int(words[0]) - 1, 0)
    cut_NHK = masks_NHK[:, top : int(rows[-1]) + 2, first : int(words[-1]) + 1]
    num_words = cut_NHK.shape[2]
    padded_NHK = np.zeros((*cut_NHK.shape[:2], num_words + num_spare_words), np.uint64)
    padded_NHK[:, :, :num_words] = cut_NHK
    right_NHK = padded_NHK >> np.uint64(1)
    right_NHK.reshape(-1)[:-1] |= padded_NHK.reshape(-1)[1:] << np.uint64(_WORD - 1)
    last_word, last_bit = (width_px - 1) // _WORD - first, np.uint64(1 << (width_px - 1) % _WORD)
    if last_word < num_words:
        right_NHK[:, :, last_word] |= cut_NHK[:, :, last_word] & last_bit
    edges_NHK = padded_NHK ^ right_NHK
    edges_NHK[:, :-1] |= (padded_NHK[:, :-1] ^ padded_NHK[:, 1:]) | (
        padded_NHK[:, :-1] ^ right_NHK[:, 1:]
    )
    edges_NHK[:, :, num_words:] = 0
    return edges_NHK


def _dilate(edges_NHK: Packed, radius_px: int) -> Packed:
    """Mark every pixel at most `radius_px` (Euclidean) from a marked one; spare words may be marked
    too.

    The disk is read row by row from its tip: at height dy it reaches isqrt(r² - dy²) pixels to each
    side, and this only grows.
    """
    num_rows = edges_NHK.shape[1]
    spans_NHK, near_NHK = edges_NHK.copy(), np.zeros_like(edges_NHK)
    buffers = np.empty(edges_NHK.size, np.uint64), np.empty(edges_NHK.size, np.uint64)
    half_width = 0
    for dy in range(radius_px, -1, -1):
        wanted = isqrt(radius_px**2 - dy**2)
        while half_width < wanted:
            # Three copies leave no gap only while the step is at most one span long.
            step = min(wanted - half_width, 2 * half_width + 1, _WORD - 1)
            _widen(spans_NHK.reshape(-1), step, buffers)
            half_width += step
        if dy == 0:
            near_NHK |= spans_NHK
        elif dy < num_rows:
            near_NHK[:, dy:] |= spans_NHK[:, :-dy]
            near_NHK[:, :-dy] |= spans_NHK[:, dy:]
    return near_NHK


def _widen(line_K: Packed, by_px: int, buffers: tuple[Packed, Packed]) -> None:
    """Add to a line of bits its copies moved by 1..63 pixels to either side, in place."""
    moved_K, carried_K = buffers
    within, across = np.uint64(by_px), np.uint64(_WORD - by_px)
    np.left_shift(line_K, within, out=moved_K)
    moved_K |= np.right_shift(line_K, within, out=carried_K)
    moved_K[1:] |= np.right_shift(line_K, across, out=carried_K)[:-1]
    moved_K[:-1] |= np.left_shift(line_K, across, out=carried_K)[1:]
    line_K |= moved_K


def _count(packed_NHK: Packed) -> tuple[int, int]:
    first, second = np.bitwise_count(packed_NHK).sum(axis=(1, 2), dtype=np.int64)
    return int(first), int(second)
