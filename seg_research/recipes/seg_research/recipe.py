"""Seg-ReSearch (arXiv:2602.04454): interleaved reasoning and search, then a key frame, then one box
and point.
"""

from __future__ import annotations

from seg_research.recipes.recipe import Recipe, ViewSizes
from seg_research.recipes.seg_research.grammar import STOP_STRINGS, parse_turn
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.tools.base import Tool
from seg_research.tools.keyframe import KeyframeTool
from seg_research.tools.search import Searcher, SearchTool


def build_tools(searcher: Searcher, sizes: ViewSizes) -> tuple[Tool, ...]:
    """Return the search and key-frame tools."""
    return (
        SearchTool(searcher, image_side_px=sizes.search_image_px),
        KeyframeTool(sizes.keyframe_px),
    )


def recipe(*, rewards: RewardSettings | None = None, brief_prompt: bool = False) -> Recipe:
    """Return the recipe.

    Args:
        rewards: what is rewarded; the published numbers by default.
        brief_prompt: leave the instructions out, for policies that learned the format by training
            alone.
    """
    return Recipe(
        "seg_research",
        parse_turn,
        STOP_STRINGS,
        build_rubric(rewards or RewardSettings()),
        build_tools,
        brief_prompt,
    )
