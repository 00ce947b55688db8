"""Read one model turn. Total: any string gives an action or a `FormatFault`, in time linear in its
length, and nothing is ever raised.

Grammar of a turn (recipe seg_research):
    [<thinking> text </thinking>]  exactly one of
        <search> {"name": "text_search" | "image_search", "query": string} </search> <keyframe>
        integer </keyframe>, or <keyframe> -1 </keyframe>: no frame shows the target (an answer, and
        the end) <answer> OBJECT | [OBJECT, …] </answer>
    OBJECT = {"bbox_2d": [x1,y1,x2,y2], "point_2d": [x,y]}, or "points_2d": [[x,y], …]; optional
    "neg_point_2d" or "neg_points_2d".
Coordinates are 0..1000; a key may stand once. Tags inside the thinking block are ordinary text: a
thought about an answer is not an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError

from seg_common.errors import InvariantError, UsageError
from seg_common.validation import first_mistake
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId
from seg_research.episode.action import Action, FormatFault, ParsedTurn
from seg_research.episode.escaping import blank_invisible
from seg_research.episode.texts import fill_text
from seg_research.recipes.seg_research.actions import (
    Answer,
    FaultKind,
    ObjectRegion,
    Search,
    SearchKind,
    ShowFrame,
)

STOP_STRINGS = ("</search>", "</keyframe>", "</answer>")
"""A generation ends after the first of these: nothing a turn says behind its action can count."""

NO_FRAME = "-1"
"""Instead of a frame number: the target is not in the video (the benchmark's own convention).
Nothing is left to be located.
"""

MAX_PAYLOAD_CHARS = 16_384
MAX_QUERY_CHARS = 500
MAX_OBJECTS = 64

_TAG = re.compile(r"<(/?)(thinking|search|keyframe|answer)>")
_INTEGER = re.compile(r"\d{1,9}")
_CONTROL_TOKEN = re.compile(r"<\|[^|<>]{0,64}\|>")


class _Block(NamedTuple):
    name: str
    body: str


class _Fault(Exception):
    """Leaves the reading functions below; never leaves this module."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.fault = FormatFault(kind, detail)


def parse_turn(text: str) -> ParsedTurn:
    """Read a model turn.

    Args:
        text: the generated text of one turn, with or without its end-of-turn token.
    """
    thinking: str | None = None
    try:
        blocks = _split_blocks(text)
        if blocks and blocks[0].name == "thinking":
            thinking = blocks.pop(0).body.strip()
        if all(block.name == "thinking" for block in blocks):
            raise _Fault(FaultKind.NO_ACTION, "no <search>, <keyframe> or <answer> block was found")
        if len(blocks) > 1:
            raise _Fault(
                FaultKind.SEVERAL_ACTIONS,
                "a turn must hold exactly one action, after at most one <thinking> block",
            )
        block = blocks[0]
        if len(block.body) > MAX_PAYLOAD_CHARS:
            raise _Fault(
                FaultKind.TOO_LONG, f"the action is longer than {MAX_PAYLOAD_CHARS} characters"
            )
        return ParsedTurn(_READERS[block.name](block.body), thinking)
    except _Fault as fault:
        return ParsedTurn(fault.fault, thinking)


def _split_blocks(text: str) -> list[_Block]:
    """Split into top-level blocks; text between blocks is ignored. Inside thinking only its closing
    tag counts.
    """
    blocks: list[_Block] = []
    open_name, body_start = "", 0
    for tag in _TAG.finditer(text):
        closing, name = bool(tag[1]), tag[2]
        if not open_name:
            if closing:
                raise _Fault(FaultKind.BAD_NESTING, f"</{name}> closes nothing")
            open_name, body_start = name, tag.end()
        elif closing and name == open_name:
            blocks.append(_Block(name, text[body_start : tag.start()]))
            open_name = ""
        elif open_name != "thinking":
            raise _Fault(
                FaultKind.BAD_NESTING,
                f"<{'/' if closing else ''}{name}> stands inside <{open_name}>",
            )
    if open_name:
        raise _Fault(FaultKind.UNCLOSED_TAG, f"<{open_name}> is never closed")
    return blocks


def _read_search(body: str) -> Search:
    value = _read_json(body)
    if not isinstance(value, dict):
        raise _Fault(FaultKind.BAD_FIELDS, 'expected {"name": …, "query": …} inside <search>')
    fields = cast("dict[str, object]", value)
    name, query = fields.get("name"), fields.get("query")
    if not isinstance(name, str) or not isinstance(query, str):
        raise _Fault(
            FaultKind.BAD_FIELDS,
            'expected {"name": …, "query": …} with two strings inside <search>',
        )
    try:
        kind = SearchKind(name)
    except ValueError:
        raise _Fault(
            FaultKind.UNKNOWN_TOOL, f"the available tools are {', '.join(SearchKind)}"
        ) from None
    query = " ".join(_CONTROL_TOKEN.sub(" ", blank_invisible(query)).split())
    if not query:
        raise _Fault(FaultKind.EMPTY_QUERY, "the query is empty")
    if len(query) > MAX_QUERY_CHARS:
        raise _Fault(FaultKind.TOO_LONG, f"the query is longer than {MAX_QUERY_CHARS} characters")
    return Search(kind, query)


def _read_keyframe(body: str) -> ShowFrame | Answer:
    digits = body.strip()
    if digits == NO_FRAME:
        return Answer(())
    if not (digits.isascii() and _INTEGER.fullmatch(digits)):
        raise _Fault(
            FaultKind.BAD_FRAME, "write only the frame number inside <keyframe>, without brackets"
        )
    return ShowFrame(FrameId(int(digits)))


def _read_answer(body: str) -> Answer:
    value = _read_json(body)
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    if not 1 <= len(items) <= MAX_OBJECTS:
        raise _Fault(FaultKind.BAD_FIELDS, f"expected 1 to {MAX_OBJECTS} objects inside <answer>")
    return Answer(tuple(_read_object(item) for item in items))


def _read_object(item: object) -> ObjectRegion:
    if not isinstance(item, dict):
        raise _Fault(
            FaultKind.BAD_FIELDS,
            'expected {"bbox_2d": [x1,y1,x2,y2], "point_2d": [x,y]} inside <answer>',
        )
    fields = cast("dict[str, object]", item)
    if "bbox_2d" not in fields:
        raise _Fault(FaultKind.BAD_FIELDS, 'the key "bbox_2d" is missing inside <answer>')
    points = _read_points(fields, "point_2d", "points_2d")
    if not points:
        raise _Fault(FaultKind.BAD_FIELDS, 'the key "point_2d" is missing inside <answer>')
    try:
        box = Norm1000Box(*_read_numbers(fields["bbox_2d"], 4, FaultKind.BAD_BOX))
    except ValueError:
        raise _Fault(
            FaultKind.BAD_BOX, "bbox_2d needs 0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000"
        ) from None
    return ObjectRegion(box, points, _read_points(fields, "neg_point_2d", "neg_points_2d"))


def _read_points(fields: dict[str, object], single: str, several: str) -> tuple[Norm1000Point, ...]:
    pairs: list[object] = [fields[single]] if single in fields else []
    if several in fields:
        listed = fields[several]
        if not isinstance(listed, list) or len(cast("list[object]", listed)) > MAX_OBJECTS:
            raise _Fault(FaultKind.BAD_POINT, f"{several} must be a list of [x, y] pairs")
        pairs += cast("list[object]", listed)
    try:
        return tuple(Norm1000Point(*_read_numbers(pair, 2, FaultKind.BAD_POINT)) for pair in pairs)
    except ValueError:
        raise _Fault(
            FaultKind.BAD_POINT, "a point needs 0 <= x <= 1000 and 0 <= y <= 1000"
        ) from None


def _read_numbers(value: object, count: int, kind: FaultKind) -> list[float]:
    if not isinstance(value, list) or len(cast("list[object]", value)) != count:
        raise _Fault(kind, f"expected a list of {count} numbers")
    numbers: list[float] = []
    for number in cast("list[object]", value):
        # bool is an int in Python; a model that answers true has not given a coordinate.
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise _Fault(kind, f"expected a list of {count} numbers")
        numbers.append(number)
    return numbers


def _read_json(body: str) -> object:
    try:
        return cast(
            "object",
            json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_each_key_once),
        )
    except (ValueError, RecursionError):
        raise _Fault(FaultKind.BAD_JSON, "the content is not valid JSON") from None


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_READERS = {"search": _read_search, "keyframe": _read_keyframe, "answer": _read_answer}


@dataclass(frozen=True, slots=True)
class SegResearchGrammar:
    """The grammar above as a value.

    Attributes:
        fault: what a policy is told of a turn that could not be read.
    """

    fault: str
    stop_strings: tuple[str, ...] = STOP_STRINGS
    tags: frozenset[str] = frozenset({"thinking", *_READERS})

    def parse(self, text: str) -> ParsedTurn:
        """Read a turn."""
        return parse_turn(text)

    def write(self, action: Action, thinking: str | None) -> str:
        """Write a turn that means this action.

        Raises:
            InvariantError: no turn of this grammar means that.
        """
        thought = "" if thinking is None else f"<thinking> {thinking} </thinking>\n"
        return thought + write_action(action)

    def fault_text(self, fault: FormatFault) -> str:
        """Tell the policy what was wrong with its turn and what is expected."""
        return fill_text(self.fault, detail=fault.detail)

    def read_action(self, fields: Mapping[str, Any]) -> Action:
        """Rebuild an action from its JSON form.

        Raises:
            UsageError: it is not the JSON form of an action of this grammar.
        """
        return read_action(fields)


def write_action(action: Action) -> str:
    """Write an action without a thought.

    Raises:
        InvariantError: no turn of this grammar means that.
    """
    match action:
        case Search(tool, query):
            call = json.dumps({"name": tool, "query": query}, ensure_ascii=False)
            return f"<search> {call} </search>"
        case ShowFrame(frame_id):
            return f"<keyframe> {frame_id} </keyframe>"
        case Answer(()):
            return f"<keyframe> {NO_FRAME} </keyframe>"
        case Answer(objects):
            regions = [_write_region(region) for region in objects]
            return f"<answer> {json.dumps(regions[0] if len(regions) == 1 else regions)} </answer>"
        case _:
            raise InvariantError(f"no turn of this grammar means {action!r:.200}")


def _write_region(region: ObjectRegion) -> dict[str, Any]:
    if region.box is None:
        raise InvariantError(f"this grammar writes no object without a box: {region!r:.200}")
    fields: dict[str, Any] = {"bbox_2d": [_short(v) for v in region.box.as_list()]}
    for points, single, several in (
        (region.points, "point_2d", "points_2d"),
        (region.negative_points, "neg_point_2d", "neg_points_2d"),
    ):
        pairs = [[_short(point.x), _short(point.y)] for point in points]
        if pairs:
            fields[single if len(pairs) == 1 else several] = pairs[0] if len(pairs) == 1 else pairs
    return fields


def _short(value: float) -> float:
    """Write whole numbers without a decimal point."""
    return int(value) if value == int(value) else value


def read_action(fields: Mapping[str, Any]) -> Action:
    """Rebuild an action from its JSON form (`Action.to_json`).

    Raises:
        UsageError: it is not the JSON form of an action of this grammar.
    """
    kind = fields.get("kind")
    try:
        match kind:
            case "search":
                return Search(SearchKind(fields["tool"]), _TEXT.validate_python(fields["query"]))
            case "keyframe":
                return ShowFrame(FrameId(_NUMBER.validate_python(fields["frame_id"])))
            case "answer":
                return Answer(
                    tuple(_region_from(row) for row in _ROWS.validate_python(fields["objects"]))
                )
            case "fault":
                fault = FaultKind(fields["fault"])
                return FormatFault(fault, _TEXT.validate_python(fields["detail"]))
            case _:
                raise UsageError(f"action kind={kind!r:.80}: not of the seg_research grammar")
    except KeyError as error:
        raise UsageError(f"action '{kind}': {error} is missing") from None
    except ValidationError as error:
        raise UsageError(f"action '{kind}': {first_mistake(error)}") from None
    except ValueError as error:
        raise UsageError(f"action '{kind}': {error}") from None


def _region_from(row: Mapping[str, Any]) -> ObjectRegion:
    box = row.get("box_norm1000")
    return ObjectRegion(
        None if box is None else Norm1000Box(*_CORNERS.validate_python(box)),
        _points_from(row.get("points_norm1000", ())),
        _points_from(row.get("negative_points_norm1000", ())),
    )


def _points_from(pairs: object) -> tuple[Norm1000Point, ...]:
    return tuple(Norm1000Point(x, y) for x, y in _PAIRS.validate_python(pairs))


_TEXT = TypeAdapter(str)
_NUMBER = TypeAdapter(int)
_ROWS = TypeAdapter(list[dict[str, Any]])
_CORNERS = TypeAdapter(tuple[float, float, float, float])
_PAIRS = TypeAdapter(list[tuple[float, float]])
