"""Settings of the project's tiny model, as the trainer's configuration has them."""

from __future__ import annotations

from importlib import resources

import yaml

from seg_research.recipes.registry import settings_from
from seg_research.recipes.settings import EpisodeSettings


def tiny_settings() -> EpisodeSettings:
    """Read them from configs/model/tiny.yaml, where they stand once."""
    file = resources.files("seg_research.configs").joinpath("model/tiny.yaml")
    chosen = yaml.safe_load(file.read_text(encoding="utf-8"))
    episode, data = chosen["seg"]["episode"], chosen["data"]
    # The trainer's own keys fill these two in by interpolation (configs/seg.yaml).
    limits = {**episode["limits"], "max_response_tokens": data["max_response_length"]}
    values = {**episode, "max_prompt_tokens": data["max_prompt_length"], "limits": limits}
    return settings_from(values, file.name)
