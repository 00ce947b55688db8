"""When the object is there, whatever its shape: agreement of two videos on the frames that show
it.
"""

from __future__ import annotations

import numpy as np

from seg_research.metrics.region import Overlap


def temporal_iou(video: Overlap) -> float:
    """Return frames with foreground in both masks over frames with foreground in either, in [0, 1];
    1 if no frame has any.

    Source: Long-RVOS, tIoU.
    """
    in_truth_T, in_prediction_T = video.truth > 0, video.prediction > 0
    num_either = int(np.count_nonzero(in_truth_T | in_prediction_T))
    return int(np.count_nonzero(in_truth_T & in_prediction_T)) / num_either if num_either else 1.0
