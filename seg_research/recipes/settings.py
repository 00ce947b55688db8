"""How episodes are run with one model: recipe, limits and picture sizes.

Stored beside a checkpoint, so that evaluation repeats what training did.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.episode.limits import Limits
from seg_research.recipes.recipe import Recipe, ViewSizes
from seg_research.recipes.registry import find_recipe
from seg_research.recipes.seg_research.reward_settings import RewardSettings

FILE_NAME = "episode.json"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EpisodeSettings:
    """Everything that shapes an episode besides the sample and the policy."""

    recipe: str = "seg_research"
    brief_prompt: bool = False
    max_prompt_tokens: int = 2048
    limits: Limits = field(default_factory=Limits)
    view: ViewSizes = field(default_factory=ViewSizes)
    rewards: RewardSettings = field(default_factory=RewardSettings)

    def __post_init__(self) -> None:
        if self.max_prompt_tokens < 1:
            raise UsageError(f"max_prompt_tokens={self.max_prompt_tokens}: expected 1 or more")

    def build_recipe(self) -> Recipe:
        """Return the recipe these settings name.

        Raises:
            UsageError: there is none of that name.
        """
        return find_recipe(self.recipe, rewards=self.rewards, brief_prompt=self.brief_prompt)

    def save(self, folder: Path) -> None:
        """Write beside a checkpoint."""
        write_atomic(folder / FILE_NAME, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def settings_from(values: object, where: str) -> EpisodeSettings:
    """Build settings from plain nested values.

    Raises:
        UsageError: a key is unknown or a value of another type; names it and `where` it stands.
    """
    return _build(EpisodeSettings, values, where)


def tiny_settings() -> EpisodeSettings:
    """Return the settings of the project's tiny model; configs/model/tiny.yaml repeats them for the
    trainer and a test compares the two.
    """
    return EpisodeSettings(
        brief_prompt=True,
        max_prompt_tokens=512,
        limits=Limits(
            max_tool_calls=4,
            max_faults=0,
            max_turn_tokens=96,
            max_response_tokens=768,
            reserve_tokens=96,
        ),
        view=ViewSizes(keyframe_px=96, search_image_px=32),
        rewards=RewardSettings(dense=True),
    )


def load_settings(model: Path) -> EpisodeSettings:
    """Read the settings stored beside a checkpoint; the published ones where there are none (a base
    model from a hub).

    Raises:
        UsageError: the file is broken.
    """
    path = model / FILE_NAME
    if not path.is_file():
        return EpisodeSettings()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not valid JSON ({error}); restore it from the run that wrote this checkpoint"
        ) from None
    return settings_from(values, str(path))


def _build(cls: type[_T], values: object, where: str) -> _T:
    plain = _keys_and_values(values, where)
    types = get_type_hints(cls)
    for key, value in plain.items():
        if key not in types:
            raise UsageError(f"{where}: unknown key '{key}'; there are: {', '.join(sorted(types))}")
        plain[key] = _value(types[key], value, f"{where}: {key}")
    return cls(**plain)


def _value(kind: type, value: object, where: str) -> object:
    """Take a value as its type demands: exactly, as in Python True is an int; but 10 may stand for
    10.0, and a name for its choice.
    """
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if issubclass(kind, StrEnum) and isinstance(value, str):
        if value not in list(kind):
            raise UsageError(f"{where}='{value}': expected one of {', '.join(kind)}")
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where}={value!r}: expected {kind.__name__}")
    return value


def _keys_and_values(values: object, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: expected keys and values, found {values!r:.80}")
    return dict(values)
