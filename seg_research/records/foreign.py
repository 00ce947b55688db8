"""Rollouts that hold text and no parsed actions: those of other projects, and version 1 of ours.

Their readers need the grammar of the recipe that made them. Recipes lie above this package, so a
reader is named here and loaded when the first such line is met.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

from seg_research.records.rollouts import Rollout
from seg_research.records.schema import PredictionRow


class ForeignFormat(Protocol):
    """A format in which another project writes its rollouts, one JSON object a line."""

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        """Tell whether a line is of this format."""
        ...

    def read_row(self, fields: Mapping[str, Any]) -> PredictionRow:
        """Read what the rollout claims, and its turns.

        Raises:
            UsageError: a field is missing or malformed; names the field.
        """
        ...

    def read_rollout(self, fields: Mapping[str, Any]) -> Rollout:
        """Read what rewards judge.

        Raises:
            UsageError: a field is missing or malformed; names the field.
        """
        ...


class Version1Reader(Protocol):
    """Completes rows of version 1, which held neither thoughts nor what an answer claimed."""

    def complete(self, row: PredictionRow) -> PredictionRow:
        """Return the row with thoughts read from the text, and the claim from the actions."""
        ...


FORMATS = {"seg_research": "seg_research.recipes.seg_research.compat.rollouts:FORMAT"}
"""Place of each format's reader, `package.module:object`."""

VERSION_1 = "seg_research.recipes.seg_research.compat.version_1:READER"
"""While version 1 was written there was one recipe."""


def find_format(fields: Mapping[str, Any]) -> ForeignFormat | None:
    """Return the format of a line; None where no one knows it."""
    formats = (cast("ForeignFormat", _load(place)) for place in FORMATS.values())
    return next((found for found in formats if found.recognises(fields)), None)


def version_1() -> Version1Reader:
    """Return the reader that completes rows of version 1."""
    return cast("Version1Reader", _load(VERSION_1))


@cache
def _load(place: str) -> object:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
