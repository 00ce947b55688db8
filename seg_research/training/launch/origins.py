"""Where each value of a run's configuration comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from seg_research.training.launch.config import leaves, named_keys, read_yaml, verl_tree
from seg_research.training.launch.recipe_node import generate


def origins(config: DictConfig, overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """List every value that is not verl's default as (key, value, origin), sorted by key."""
    with initialize_config_dir(str(verl_tree()), version_base="1.3"):
        stock = leaves(OmegaConf.to_container(compose("ppo_trainer"), resolve=False))
    named = named_keys(overrides)
    files = _our_files(overrides)
    rows: list[tuple[str, str, str]] = []
    for key, value in sorted(leaves(OmegaConf.to_container(config, resolve=False)).items()):
        if key not in stock or stock[key] != value:
            shown = OmegaConf.select(config, key, throw_on_missing=False)
            rows.append((key, str(shown), origin(key, named, files)))
    return rows


def origin(key: str, named: set[str], files: list[tuple[str, dict[str, Any]]]) -> str:
    """Tell who set a key last."""
    if key in named:
        return "command line"
    return next((file for file, values in reversed(files) if key in values), "launcher")


def _our_files(overrides: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Give the leaves of each YAML file that takes part, in the order of composition."""
    train = read_yaml("train.yaml")
    chosen = chosen_options(train.pop("defaults"), overrides)
    parts = [
        ("settings of the recipe", {"seg": generate(overrides)}),
        ("seg.yaml", {"seg": read_yaml("seg.yaml")}),
    ]
    for group, option in chosen.items():
        parts.append((f"{group}/{option}.yaml", read_yaml(f"{group}/{option}.yaml")))
    return [(name, decided(values)) for name, values in [*parts, ("train.yaml", train)]]


def chosen_options(defaults: Sequence[Any], overrides: Sequence[str]) -> dict[str, str]:
    """Give the option of each group of ours, in the order of composition. Not from Hydra's
    `runtime.choices`: those need a second composition, and have no order.

    Args:
        defaults: list of defaults of a configuration file.
        overrides: of the command line.
    """
    chosen: dict[str, str] = {}
    for entry in defaults:
        for name, option in entry.items() if isinstance(entry, dict) else ():
            if not name.startswith("optional "):
                chosen[name.partition("@")[0]] = option
    for override in overrides:
        group, _, option = override.partition("=")
        if group in chosen:
            chosen[group] = option
    return chosen


def decided(values: dict[str, Any]) -> dict[str, Any]:
    """Flatten the values of a file; one that only says `???` decided nothing."""
    return {key: value for key, value in leaves(values).items() if value != "???"}
