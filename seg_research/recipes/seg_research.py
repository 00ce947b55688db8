"""Seg-ReSearch (arXiv:2602.04454): interleaved reasoning and search, then a key frame, then one box and point.

Weights follow specs seg_research §5.5: four outcome terms of weight 1 and one process part of weight 1. Until the guidance term joins, the
process part is half format, half tapering.
"""

from __future__ import annotations

from seg_research.protocol.parser import STOP_STRINGS, parse_turn
from seg_research.recipes.recipe import Recipe, ViewSizes
from seg_research.rewards.rubric import Rubric
from seg_research.rewards.terms.outcome import BoxIoU, BoxL1, KeyframeArea, PointHit
from seg_research.rewards.terms.process import Tapering, WellFormed
from seg_research.tools.base import Tool
from seg_research.tools.keyframe import KeyframeTool
from seg_research.tools.search import Searcher, SearchTool


def build_tools(searcher: Searcher, sizes: ViewSizes) -> tuple[Tool, ...]:
    """Return the search and key-frame tools."""
    return (SearchTool(searcher, image_side_px=sizes.search_image_px), KeyframeTool(sizes.keyframe_px))


def recipe(*, dense_rewards: bool = False, brief_prompt: bool = False) -> Recipe:
    """Return the recipe.

    Args:
        dense_rewards: pay the IoU itself instead of a step at 0.5, and part of the format, for policies too weak to reach the step.
        brief_prompt: leave the instructions out, for policies that learned the format by training alone.
    """
    rubric = Rubric(
        (
            (BoxIoU(threshold=None if dense_rewards else 0.5), 1.0),
            (BoxL1(), 1.0),
            (PointHit(), 1.0),
            (KeyframeArea(), 1.0),
            (WellFormed(graded=dense_rewards), 0.5),
            (Tapering(), 0.5),
        )
    )
    return Recipe("seg_research", parse_turn, STOP_STRINGS, rubric, build_tools, brief_prompt)
