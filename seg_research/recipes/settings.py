"""How episodes are run with one model: recipe, limits and picture sizes. Stored beside a checkpoint, so that evaluation repeats what training did."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from seg_research.core.errors import UsageError
from seg_research.core.files import write_atomic
from seg_research.env.limits import Limits
from seg_research.recipes.recipe import Recipe, ViewSizes
from seg_research.recipes.registry import find_recipe

FILE_NAME = "episode.json"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EpisodeSettings:
    """Everything that shapes an episode besides the sample and the policy."""

    recipe: str = "seg_research"
    dense_rewards: bool = False
    brief_prompt: bool = False
    max_prompt_tokens: int = 2048
    limits: Limits = field(default_factory=Limits)
    view: ViewSizes = field(default_factory=ViewSizes)

    def build_recipe(self) -> Recipe:
        """Return the recipe these settings name.

        Raises:
            UsageError: there is none of that name.
        """
        return find_recipe(self.recipe, dense_rewards=self.dense_rewards, brief_prompt=self.brief_prompt)

    def save(self, folder: Path) -> None:
        """Write beside a checkpoint."""
        write_atomic(folder / FILE_NAME, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def settings_from(values: Mapping[str, Any], where: str) -> EpisodeSettings:
    """Build settings from plain nested values.

    Raises:
        UsageError: a key is unknown; names it and `where` it stands.
    """
    plain = dict(values)
    if "limits" in plain:
        plain["limits"] = _build(Limits, plain["limits"], f"{where}: limits")
    if "view" in plain:
        plain["view"] = _build(ViewSizes, plain["view"], f"{where}: view")
    return _build(EpisodeSettings, plain, where)


def tiny_settings() -> EpisodeSettings:
    """Return the settings of the project's tiny model; configs/model/tiny.yaml repeats them for the trainer and a test compares the two."""
    return EpisodeSettings(
        dense_rewards=True,
        brief_prompt=True,
        max_prompt_tokens=512,
        limits=Limits(max_tool_calls=4, max_faults=0, max_turn_tokens=96, max_response_tokens=768, reserve_tokens=96),
        view=ViewSizes(keyframe_px=96, search_image_px=32),
    )


def load_settings(model: Path) -> EpisodeSettings:
    """Read the settings stored beside a checkpoint; the published ones where there are none (a base model from a hub).

    Raises:
        UsageError: the file is broken.
    """
    path = model / FILE_NAME
    if not path.is_file():
        return EpisodeSettings()
    try:
        return settings_from(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: not valid episode settings ({error})") from None


def _build(cls: type[_T], values: Mapping[str, Any], where: str) -> _T:
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"{where}: unknown key '{unknown[0]}'; there are: {', '.join(sorted(known))}")
    return cls(**values)
