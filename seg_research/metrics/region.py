"""Region similarity J, and the pixel counts under every score of overlap. Axes: T frames, H rows, W
columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg_research.core.masks import Mask
from seg_research.metrics.frames import MasksLike, paired_frames


class Overlap(NamedTuple):
    """Pixels of every frame; each (T,) int64.

    Attributes:
        common: pixels of truth and prediction both.
        either: pixels of at least one of them.
        truth: pixels of the truth.
        prediction: pixels of the prediction.
    """

    common: NDArray[np.int64]
    either: NDArray[np.int64]
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of every frame, (T,), in [0, 1]; 1 where both masks are empty."""
        return np.divide(
            self.common, self.either, out=np.ones(len(self.either)), where=self.either > 0
        )


def overlap(
    truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None = None
) -> Overlap:
    """Count pixels of every frame; void pixels count nowhere.

    Raises:
        UsageError: see `paired_frames`.
    """
    counts = [
        _count(truth_HW, prediction_HW)
        for truth_HW, prediction_HW in paired_frames(truth_THW, prediction_THW, void_THW)
    ]
    return Overlap(*np.array(counts, np.int64).T)


def jaccard(
    truth_THW: MasksLike, prediction_THW: MasksLike, void_THW: MasksLike | None = None
) -> NDArray[np.float64]:
    """Return J of every frame, (T,), in [0, 1]; 1 where both masks are empty.

    Args:
        truth_THW: ground truth.
        prediction_THW: what is judged.
        void_THW: pixels that count neither way.

    Raises:
        UsageError: see `paired_frames`.

    Source: DAVIS-2017, region similarity.
    """
    return overlap(truth_THW, prediction_THW, void_THW).iou


def _count(truth_HW: Mask, prediction_HW: Mask) -> tuple[int, int, int, int]:
    num_truth, num_prediction = (
        int(np.count_nonzero(truth_HW)),
        int(np.count_nonzero(prediction_HW)),
    )
    num_common = int(np.count_nonzero(truth_HW & prediction_HW))
    return num_common, num_truth + num_prediction - num_common, num_truth, num_prediction
