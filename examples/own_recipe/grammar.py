"""The language of this recipe: <think>, <look>, <reply>."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from seg_common.errors import InvariantError, UsageError
from seg_common.validation import first_mistake
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId
from seg_research.episode.action import Action, FormatFault, ParsedTurn
from seg_research.episode.texts import fill_text
from seg_research.tools.search import Search, SearchKind

_TAG = re.compile(r"</?(?:think|look|reply)>")
_FRAME = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Look(Action):
    """See a frame beside the chosen one."""

    frame_id: FrameId


@dataclass(frozen=True, slots=True)
class Region:
    """One part of the target: a box, points on it and points off it."""

    box: Norm1000Box
    on: tuple[Norm1000Point, ...]
    off: tuple[Norm1000Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply(Action):
    """The two parts, on one frame."""

    frame_id: FrameId
    parts: tuple[Region, ...]
    kind: ClassVar[str] = "reply"

    @property
    def is_final(self) -> bool:
        """A reply ends the episode."""
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the parts as the policy writes them."""
        return {"kind": self.kind, **_reply_to_json(self)}


_PARTS = TypeAdapter(list[dict[str, list[Any]]])
_FRAME_ID = TypeAdapter(int)


@dataclass(frozen=True, slots=True)
class TwoPartsGrammar:
    """Reads and writes turns; `fault` is what a policy is told of a turn that is none."""

    fault: str
    stop_strings: tuple[str, ...] = ("</look>", "</reply>")
    tags: frozenset[str] = frozenset({"think", "look", "reply"})

    def parse(self, text: str) -> ParsedTurn:
        """Read a turn: one pass over its tags."""
        tags = list(_TAG.finditer(text))
        names = [tag[0] for tag in tags]
        thinking = None
        if names[:2] == ["<think>", "</think>"]:
            thinking = text[tags[0].end() : tags[1].start()].strip()
            tags, names = tags[2:], names[2:]
        if names not in (["<look>", "</look>"], ["<reply>", "</reply>"]):
            return ParsedTurn(FormatFault("form", "one thought and one action"), thinking)
        body = text[tags[0].end() : tags[1].start()].strip()
        try:
            if names[0] == "<look>":
                return ParsedTurn(_read_look(body), thinking)
            return ParsedTurn(_read_reply(json.loads(body)), thinking)
        except (ValueError, TypeError, RecursionError, KeyError):
            return ParsedTurn(FormatFault("content", f"what stands in {names[0]}"), thinking)

    def write(self, action: Action, thinking: str | None) -> str:
        """Write a turn that means this action."""
        thought = "" if thinking is None else f"<think> {thinking} </think>\n"
        match action:
            case Look(frame_id):
                return f"{thought}<look> {frame_id} </look>"
            case Search(_, query):
                return f"{thought}<look> {json.dumps({'find': query})} </look>"
            case Reply():
                return f"{thought}<reply> {json.dumps(_reply_to_json(action))} </reply>"
            case _:
                raise InvariantError(f"no turn means {action!r:.200}")

    def fault_text(self, fault: FormatFault) -> str:
        """Tell what was expected."""
        return fill_text(self.fault, detail=fault.detail)

    def read_action(self, fields: Mapping[str, Any]) -> Action:
        """Rebuild an action from its JSON form."""
        try:
            match fields.get("kind"):
                case "look":
                    return Look(FrameId(int(fields["frame_id"])))
                case "search":
                    return Search(SearchKind(fields["tool"]), str(fields["query"]))
                case "reply":
                    return _read_reply(fields)
                case "fault":
                    return FormatFault(str(fields["fault"]), str(fields["detail"]))
                case kind:
                    raise UsageError(f"action kind={kind!r:.80}: not of this recipe")
        except ValidationError as error:
            raise UsageError(f"action: {first_mistake(error)}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"action: {error!r}") from None


def _read_look(body: str) -> Action:
    if _FRAME.fullmatch(body):
        return Look(FrameId(int(body)))
    query = json.loads(body)["find"]
    if not isinstance(query, str) or not query.strip() or len(query) > 300:
        raise ValueError("query")
    return Search(SearchKind.TEXT, " ".join(query.split()))


def _read_reply(fields: Mapping[str, Any]) -> Reply:
    rows = _PARTS.validate_python(fields["parts"])
    if not 1 <= len(rows) <= 2:
        raise ValueError("one or two parts")
    return Reply(FrameId(_FRAME_ID.validate_python(fields["frame"])), tuple(map(_region, rows)))


def _reply_to_json(reply: Reply) -> dict[str, Any]:
    return {"frame": reply.frame_id, "parts": [_part_to_json(part) for part in reply.parts]}


def _region(row: dict[str, list[Any]]) -> Region:
    on, off = (tuple(Norm1000Point(x, y) for x, y in row.get(name, ())) for name in ("on", "off"))
    if not on:
        raise ValueError("no point")
    return Region(Norm1000Box(*row["box"]), on, off)


def _part_to_json(part: Region) -> dict[str, Any]:
    return {
        "box": part.box.as_list(),
        "on": [[point.x, point.y] for point in part.on],
        "off": [[point.x, point.y] for point in part.off],
    }
