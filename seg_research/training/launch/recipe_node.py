"""The part of `seg` that is generated from the settings of the recipe in use, so that no default of
an episode is written twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, open_dict

from seg_common.errors import UsageError
from seg_research.recipes.registry import DEFAULT_RECIPE, find_recipe

NODE_NAME = "recipe_settings"
"""Name under which train.yaml and sft.yaml take the node."""
_RECIPE_KEY = "seg.episode.recipe"


def generate(overrides: Sequence[str]) -> dict[str, Any]:
    """Register the node for the recipe that these overrides choose, and return it: `episode` with
    every default, and those of `search` that an episode takes from there.

    Raises:
        UsageError: there is no such recipe.
    """
    name = recipe_named(overrides)
    settings = find_recipe(name).settings
    node = {
        "episode": {**settings.to_json(), "recipe": name},
        "search": {
            "browse": settings.search.browse,
            "deadline_s": settings.search.deadline_s,
        },
    }
    ConfigStore.instance().store(name=NODE_NAME, node=node, package="seg")
    return node


def recipe_named(overrides: Sequence[str]) -> str:
    """Return the recipe that overrides name, by itself or by its group."""
    chosen: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        chosen[key] = value
    if _RECIPE_KEY in chosen:
        return chosen[_RECIPE_KEY].strip("'\"")
    group = chosen.get("recipe", DEFAULT_RECIPE)
    file = resources.files("seg_research.configs").joinpath(f"recipe/{group}.yaml")
    if not file.is_file():
        return DEFAULT_RECIPE
    episode = yaml.safe_load(file.read_text(encoding="utf-8")).get("seg", {}).get("episode", {})
    return str(episode.get("recipe", DEFAULT_RECIPE))


def drop_foreign(config: DictConfig, node: Mapping[str, Any], named: set[str]) -> None:
    """Leave out what files of models and recipes wish for an episode of another recipe than the one
    in use, such as a reward that it does not have.

    Raises:
        UsageError: the command line `named` such a key.
    """
    foreign = list(_foreign(config.seg.episode, node["episode"], "seg.episode"))
    for key in foreign:
        if any(given == key or given.startswith(f"{key}.") for given in named):
            known = ", ".join(sorted(node["episode"]))
            raise UsageError(f"configuration: nothing reads '{key}'; there are: {known}")
        *path, last = key.split(".")
        place = config
        for step in path:
            place = place[step]
        with open_dict(place):
            del place[last]


def _foreign(values: Mapping[Any, Any], known: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in list(values):
        where = f"{prefix}.{key}"
        if key not in known:
            yield where
        elif isinstance(known[key], dict):
            yield from _foreign(values[key], known[key], where)
