"""Find a recipe by its name here, or by the place of a function that makes it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from seg_common.errors import UsageError
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.seg_research import recipe as seg_research

RECIPES: dict[str, Callable[..., Recipe]] = {"seg_research": seg_research.recipe}


def find_recipe(name: str, **options: Any) -> Recipe:
    """Return a recipe.

    Args:
        name: one of `RECIPES`, or `package.module:function` of a module that Python finds
            (docs/training.md).
        **options: what the function takes: `rewards` and `brief_prompt`.

    Raises:
        UsageError: there is none of that name.
    """
    module_name, colon, function = name.partition(":")
    if not colon:
        if name not in RECIPES:
            raise UsageError(
                f"unknown recipe '{name}'; there are: {', '.join(sorted(RECIPES))}, or your own: package.module:function"
            )
        return RECIPES[name](**options)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"recipe '{name}': {error}; install it, or name its folder in PYTHONPATH"
        ) from None
    if not callable(getattr(module, function, None)):
        raise UsageError(f"recipe '{name}': {module_name} has no function {function}")
    return getattr(module, function)(**options)
