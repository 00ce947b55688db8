"""Judges of masks: J (region), F (boundary), image and temporal scores, and how they are averaged
(docs/metrics.md).
"""

from seg_research.metrics.aggregate import (
    Averaging,
    Estimate,
    GroupScore,
    Measure,
    SampleScore,
    ScoreTable,
    aggregate,
)
from seg_research.metrics.boundary import boundary_f
from seg_research.metrics.image import c_iou, g_iou
from seg_research.metrics.region import Overlap, jaccard, overlap
from seg_research.metrics.temporal import temporal_iou

__all__ = [
    "Averaging",
    "Estimate",
    "GroupScore",
    "Measure",
    "Overlap",
    "SampleScore",
    "ScoreTable",
    "aggregate",
    "boundary_f",
    "c_iou",
    "g_iou",
    "jaccard",
    "overlap",
    "temporal_iou",
]
