"""Compose a run's configuration, and read the parts of it that are ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg_common.errors import UsageError
from seg_research.recipes.registry import settings_from
from seg_research.recipes.settings import EpisodeSettings
from seg_research.rewards.grouping import GroupSettings, Scale
from seg_research.training.extension_points import check_installation, tested_verl
from seg_research.training.launch import recipe_node

DEFAULT_RUN_DIR = "outputs/train"
GROUP_ESTIMATOR = "seg_grpo"
"""Name of our advantage estimator (learner/advantage.py), which `seg.groups` configures."""
SAMPLER = "pkg://seg_research.training.learner.replay"


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a run.

    Raises:
        UsageError: an override names something that does not exist, or a required value is missing.
    """
    given = list(overrides)
    if not any(o.lstrip("+").startswith("seg.run_dir=") for o in given):
        given.append(f"seg.run_dir={DEFAULT_RUN_DIR}")
    node = recipe_node.generate(given)
    try:
        with initialize_config_module("seg_research.configs", version_base="1.3"):
            tree = f"hydra.searchpath=['file://{verl_tree()}']"
            config = compose(
                "train", [tree, "seg.agent_loops=${seg.run_dir}/agent_loops.yaml", *given]
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"configuration: {one_line(error)}") from None
    recipe_node.drop_foreign(config, node, named_keys(overrides))
    _check_ours(config, node)
    if config.seg.episode.texts is not None:
        config.seg.episode.texts = str(Path(config.seg.episode.texts).resolve())
    config.seg.run_dir = str(Path(config.seg.run_dir).resolve())
    missing = [f"{key}=…" for key in _REQUIRED if OmegaConf.select(config, key) is None]
    if not (config.seg.search.url or config.seg.search.text or config.seg.search.provider):
        missing.append(
            "seg.search.text=… (a corpus), seg.search.url=… (a running server) or "
            "search=serper (the web)"
        )
    if missing:
        raise UsageError(
            f"configuration: please set {' '.join(missing)}; see seg-research train --help"
        )
    return config


_REQUIRED = ("data.train_files", "data.val_files", "actor_rollout_ref.model.path")


def verl_tree() -> Path:
    """Find verl's configuration files without importing verl, which takes ten seconds."""
    status = check_installation(tested_verl())
    if not status.ok:
        raise UsageError(f"verl: {status.detail}")
    spec = importlib.util.find_spec("verl")
    assert spec is not None, "just checked"
    assert spec.origin is not None, "just checked"
    return Path(spec.origin).parent / "trainer" / "config"


def _check_ours(config: DictConfig, node: dict[str, Any]) -> None:
    """Refuse keys of ours that nothing reads (Hydra lets `+seg.typo=1` pass), and text where a
    number or a yes-or-no stands by default.
    """
    known = leaves({"seg": node}) | leaves({"seg": read_yaml("seg.yaml")})
    for key in leaves({"seg": OmegaConf.to_container(config.seg, resolve=False)}):
        if key not in known:
            raise UsageError(
                f"configuration: nothing reads '{key}'; "
                "see seg_research/configs/seg.yaml for what there is"
            )
        default, value = known[key], OmegaConf.select(config, key, throw_on_missing=False)
        fits = isinstance(value, type(default)) or (
            isinstance(default, float) and isinstance(value, int)
        )
        if isinstance(default, bool | int | float) and not fits:
            raise UsageError(f"configuration: {key}={value}: expected a value like {default}")


def named_keys(overrides: Sequence[str]) -> set[str]:
    """Return the keys that overrides name, down to the last."""
    named: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        named |= leaves(override.value(), override.key_or_group).keys()
    return named


def one_line(error: Exception) -> str:
    """Return what Hydra says of a mistake, without its line breaks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines[:4])


def episode_settings(config: DictConfig) -> EpisodeSettings:
    """Read and validate `seg.episode`."""
    return settings_from(plain(config.seg.episode), "seg.episode")


def group_settings(config: DictConfig) -> GroupSettings:
    """Read and validate `seg.groups`."""
    values = plain(config.seg.groups)
    if values["scale"] not in list(Scale):
        raise UsageError(
            f"seg.groups: scale='{values['scale']}': expected one of {', '.join(Scale)}"
        )
    return GroupSettings(**{**values, "scale": Scale(values["scale"])})


def plain(node: Any) -> dict[str, Any]:
    """Turn a config node into a plain dict, interpolations resolved."""
    return dict(OmegaConf.to_container(node, resolve=True))  # type: ignore[arg-type]


def as_list(value: Any) -> list[str]:
    """Give verl's one-or-many file settings as a list."""
    return [value] if isinstance(value, str) else list(value)


def read_yaml(name: str) -> dict[str, Any]:
    """Read one of our configuration files, as it stands."""
    return yaml.safe_load(
        resources.files("seg_research.configs").joinpath(name).read_text(encoding="utf-8")
    )


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found
