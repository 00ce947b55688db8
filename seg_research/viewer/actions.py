"""Any recipe's action in a few words, from its recorded fields alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from seg_research.records.schema import FAULT_KIND
from seg_research.viewer.text import shorten
from seg_research.viewer.truth import read_box, read_numbers

LABEL_CHARS, LINE_CHARS = 24, 600
MAX_OBJECTS, MAX_POINTS = 8, 8

_NAMED_BY = "tool"
"""The field that says more of an action than its kind: which of a tool's functions is asked for."""


class ActionView(NamedTuple):
    """An action: its label, the state that colours it (plain or bad), and its fields in a line."""

    label: str
    state: str
    line: str


def describe_action(action: Mapping[str, Any]) -> ActionView:
    """Describe an action in its JSON form."""
    kind = action.get("kind")
    if kind == FAULT_KIND:
        fault = _words(str(action.get("fault", FAULT_KIND)))
        return ActionView(
            "malformed", "bad", shorten(f"{fault}: {action.get('detail', '')}", LINE_CHARS)
        )
    label = shorten(_words(str(action.get(_NAMED_BY) or kind or "turn")), LABEL_CHARS)
    fields = {name: value for name, value in action.items() if name not in ("kind", _NAMED_BY)}
    described = (_describe(name, value, alone=len(fields) == 1) for name, value in fields.items())
    return ActionView(label, "plain", shorten("; ".join(filter(None, described)), LINE_CHARS))


def _describe(name: str, value: object, *, alone: bool) -> str:
    match name, value:
        case "objects", list():
            return _describe_objects(cast("list[object]", value))
        case _, None:
            return ""
        case _, str() if alone:
            return value
        case _, bool() | int() | float() | str():
            return f"{_words(name.removesuffix('_id'))} {value}"
        case _:
            numbers = None if not isinstance(value, list) else _numbers(cast("list[object]", value))
            return f"{_words(name)} {numbers or json.dumps(value, ensure_ascii=False, default=str)}"


def _describe_objects(objects: list[object]) -> str:
    if not objects:
        return "the target is not in the video"
    shown = [cast("dict[str, Any]", one) for one in objects[:MAX_OBJECTS] if isinstance(one, dict)]
    more = [f"{len(objects) - MAX_OBJECTS} more"] if len(objects) > MAX_OBJECTS else []
    return "; ".join([*map(_describe_object, shown), *more])


def _describe_object(fields: Mapping[str, Any]) -> str:
    box = read_box(fields.get("box_norm1000"))
    words = [f"box {_plain(box.as_list())}" if box else "no box"]
    for name, what in (("points_norm1000", "point"), ("negative_points_norm1000", "not")):
        given = fields.get(name)
        pairs = cast("list[object]", given) if isinstance(given, list) else []
        numbers = [read_numbers(pair, 2) for pair in pairs[:MAX_POINTS]]
        words += [f"{what} {_plain(pair)}" for pair in numbers if pair is not None]
    if fields.get("frame_id") is not None:
        words.insert(0, f"frame {fields['frame_id']}")
    return ", ".join(words)


def _numbers(values: list[object]) -> str:
    numbers = read_numbers(values, len(values))
    return _plain(numbers) if numbers else ""


def _plain(numbers: list[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _words(name: str) -> str:
    return name.replace("_", " ")
