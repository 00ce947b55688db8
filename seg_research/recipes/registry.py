"""Find a recipe by name."""

from __future__ import annotations

from collections.abc import Callable

from seg_research.core.errors import UsageError
from seg_research.recipes import seg_research
from seg_research.recipes.recipe import Recipe

RECIPES: dict[str, Callable[..., Recipe]] = {"seg_research": seg_research.recipe}


def find_recipe(name: str, **options: bool) -> Recipe:
    """Return a recipe.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe '{name}'; there are: {', '.join(sorted(RECIPES))}")
    return RECIPES[name](**options)
