"""Values from files and command lines, checked against a type; the first mistake is told in one
line.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from seg_common.errors import UsageError

_T = TypeVar("_T")
_MAX_SHOWN_CHARS = 80
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument")


def validated(kind: type[_T], values: object, where: str) -> _T:
    """Build a value of a type from plain nested values, as JSON would hold them.

    Args:
        kind: a pydantic dataclass or model.
        values: keys and values; nothing is converted but 10 to 10.0 and a name to its choice.
        where: where they stand, for the message.

    Raises:
        UsageError: names the first key that is unknown or the first value that does not fit.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values))
    except ValidationError as error:
        raise UsageError(f"{where}: {first_mistake(error, kind)}") from None
    except (TypeError, RecursionError) as error:
        raise UsageError(f"{where}: {error}") from None


def first_mistake(error: ValidationError, kind: type[Any] | None = None) -> str:
    """Describe the first mistake in one line: place, value, what was expected, and the keys that
    there are where one is unknown (`kind` knows them).
    """
    mistakes = error.errors(include_url=False)
    # A misspelt key is told before the one that is missing for it.
    first = next((mistake for mistake in mistakes if mistake["type"] in _UNKNOWN), mistakes[0])
    place = ".".join(str(step) for step in first["loc"])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] in _UNKNOWN:
        known = _keys(kind, first["loc"][:-1])
        there_are = f"; there are: {', '.join(known)}" if known else ""
        return f"{place}: unknown key{there_are}"
    if first["type"] in _MISSING:
        return f"{place}: missing"
    if first["type"] == "value_error" and not isinstance(first["input"], str | int | float | None):
        return f"{place}: {message}" if place else message
    shown = repr(first["input"])
    if len(shown) > _MAX_SHOWN_CHARS:
        shown = shown[:_MAX_SHOWN_CHARS] + "…"
    return f"{place}={shown}: {message}" if place else f"{message}, found {shown}"


def _keys(kind: Any, steps: tuple[int | str, ...]) -> list[str]:
    """List the keys of the dataclass that stands at the end of these steps."""
    for step in steps:
        kind = get_type_hints(kind).get(str(step)) if dataclasses.is_dataclass(kind) else None
    return (
        sorted(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else []
    )
