"""Scores of image benchmarks, from pixel counts: a data set's images differ in size, so each brings
its own `Overlap`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from seg_research.metrics.region import Overlap


def g_iou(overlaps: Iterable[Overlap]) -> float:
    """Return the mean IoU in [0, 1], divided by the number of images; an image where both masks are
    empty counts 1.

    Raises:
        ValueError: there is no image.

    Source: ReasonSeg, gIoU. Its code adds 1e-5 to every union, which lowers the score by less than
    1e-5 an image; we do not.
    """
    ious = [image.iou for image in overlaps]
    if not ious:
        raise ValueError("no images to average")
    return float(np.concatenate(ious).mean())


def c_iou(overlaps: Iterable[Overlap]) -> float:
    """Return all common pixels over all pixels of either mask, in [0, 1]: large objects weigh more.
    1 if every mask is empty.

    Source: refCOCO and ReasonSeg, cIoU. Where every mask is empty their code returns 0.
    """
    num_common = num_either = 0
    for image in overlaps:
        num_common += int(image.common.sum())
        num_either += int(image.either.sum())
    return num_common / num_either if num_either else 1.0
