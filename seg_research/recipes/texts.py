"""Load what a recipe says to a policy from a YAML file, and check all of it at the start."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml

from seg_common.errors import UsageError
from seg_common.validation import validated

_T = TypeVar("_T")


def load_texts(kind: type[_T], file: Path) -> _T:
    """Read the texts of a recipe.

    Args:
        kind: pydantic dataclass whose fields are texts (`episode.texts.needs`) or groups of them.
        file: YAML.

    Raises:
        UsageError: the file is missing or no YAML, or a text is missing, unknown, or lacks a place
            for a value; names it.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"texts {file}: {' '.join(str(error).split())}") from None
    return validated(kind, values, f"texts {file}")
