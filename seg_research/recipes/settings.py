"""How episodes are run with one model: recipe, texts, limits, sizes of images, search.

Stored beside a checkpoint, so that whoever runs it repeats what training did. A recipe derives its
own class (`Recipe.settings_type`) and adds what it needs; the node `seg.episode` of the
configuration is generated from that class, so that no default is written twice.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field
from pydantic_core import to_jsonable_python

from seg_common.files import write_atomic
from seg_research.episode.limits import Limits
from seg_research.search.settings import SearchSettings

FILE_NAME = "episode.json"
TEXTS_FILE_NAME = "texts.yaml"

Pixels = Annotated[int, Field(ge=1)]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class ViewSizes:
    """Sizes at which images are shown, in pixels of their square side; multiples of the model's
    patch factor.
    """

    keyframe_px: Pixels = 864
    search_image_px: Pixels = 256


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class EpisodeSettings:
    """Everything that shapes an episode besides the sample and the policy.

    Attributes:
        recipe: name of a recipe here, or `package.module:Class` of one's own.
        texts: YAML file with other texts than the recipe's own; None takes those.
        max_prompt_tokens: longest opening prompt.
        limits: how long the episode may become.
        view: sizes of images.
        search: search server and results.
    """

    recipe: str
    texts: str | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 2048
    limits: Limits = field(default_factory=Limits)
    view: ViewSizes = field(default_factory=ViewSizes)
    search: SearchSettings = field(default_factory=SearchSettings)

    def to_json(self) -> dict[str, Any]:
        """Return plain nested values, as `settings_from` reads them."""
        return to_jsonable_python(self)

    def without_address(self) -> EpisodeSettings:
        """Return the settings without the search server's address, which shapes no episode."""
        return replace(self, search=replace(self.search, url=None))

    def save(self, folder: Path) -> None:
        """Write beside a checkpoint, with the texts where they are not the recipe's own. The
        address is left out: the search server of a run is gone when its checkpoint is used.
        """
        stored = self.without_address()
        if self.texts is not None:
            shutil.copyfile(self.texts, folder / TEXTS_FILE_NAME)
            stored = replace(stored, texts=TEXTS_FILE_NAME)
        write_atomic(folder / FILE_NAME, json.dumps(stored.to_json(), indent=1) + "\n")

    def with_texts_below(self, folder: Path) -> EpisodeSettings:
        """Return the settings with a relative path of texts taken from a folder."""
        return self if self.texts is None else replace(self, texts=str(folder / self.texts))


def node_of(settings: EpisodeSettings) -> dict[str, Any]:
    """Return settings as a node of the configuration: every key with its value."""
    return {
        f.name: to_jsonable_python(getattr(settings, f.name)) for f in dataclasses.fields(settings)
    }
