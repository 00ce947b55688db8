"""Judges of masks: J (region), F (boundary), and how they are averaged."""

from seg_research.metrics.aggregate import GroupScore, SampleScore, ScoreTable, aggregate
from seg_research.metrics.boundary import boundary_f
from seg_research.metrics.region import jaccard

__all__ = ["GroupScore", "SampleScore", "ScoreTable", "aggregate", "boundary_f", "jaccard"]
