"""Find a recipe by its name: a folder here, or a class of your own; and its settings."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from seg_common.errors import UsageError
from seg_common.validation import validated
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.settings import FILE_NAME, EpisodeSettings

DEFAULT_RECIPE = "seg_research"
_HERE = __package__ or ""


def recipe_names() -> tuple[str, ...]:
    """List the recipes that come with the library: the folders of this package."""
    package = importlib.import_module(_HERE)
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.ispkg))


def recipe_class(name: str) -> type[Recipe]:
    """Return the class of a recipe.

    Args:
        name: a folder here, or `package.module:Class` of a module that Python finds
            (docs/training.md).

    Raises:
        UsageError: there is none of that name.
    """
    module_name, colon, class_name = name.partition(":")
    if not colon:
        if name not in recipe_names():
            raise UsageError(
                f"unknown recipe '{name}'; there are: {', '.join(recipe_names())}, or your own:"
                " package.module:Class"
            )
        return _only_recipe(importlib.import_module(f"{_HERE}.{name}.recipe"))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"recipe '{name}': {error}; install it, or name its folder in PYTHONPATH"
        ) from None
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Recipe)):
        raise UsageError(f"recipe '{name}': {module_name} has no recipe class {class_name}")
    return found


def find_recipe(name: str, settings: EpisodeSettings | None = None) -> Recipe:
    """Return a recipe, by default with its own default settings.

    Raises:
        UsageError: there is none of that name.
    """
    kind = recipe_class(name)
    return kind(kind.settings_type(recipe=name) if settings is None else settings)


def build_recipe(settings: EpisodeSettings) -> Recipe:
    """Return the recipe that settings name.

    Raises:
        UsageError: there is none of that name.
    """
    return find_recipe(settings.recipe, settings)


def settings_from(values: object, where: str) -> EpisodeSettings:
    """Build settings from plain nested values, in the class of the recipe that they name.

    Raises:
        UsageError: a key is unknown or a value of another type; names it and `where` it stands.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: expected keys and values, found {values!r:.80}")
    named: dict[str, Any] = {"recipe": DEFAULT_RECIPE, **values}
    if not isinstance(named["recipe"], str):
        raise UsageError(f"{where}: recipe={named['recipe']!r}: expected a name")
    return validated(recipe_class(named["recipe"]).settings_type, named, where)


def load_settings(model: Path) -> EpisodeSettings:
    """Read the settings stored beside a checkpoint; the default recipe's where there are none (a
    base model from a hub).

    Raises:
        UsageError: the file is broken.
    """
    path = model / FILE_NAME
    if not path.is_file():
        return find_recipe(DEFAULT_RECIPE).settings
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not valid JSON ({error}); restore it from the run that wrote this checkpoint"
        ) from None
    return settings_from(values, str(path)).with_texts_below(model)


def _only_recipe(module: ModuleType) -> type[Recipe]:
    (found,) = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Recipe) and kind.__module__ == module.__name__
    ]
    return found
