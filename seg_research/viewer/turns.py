"""Turns of a conversation, ready to be laid out. Strings are cut to size here and escaped later, by
the template engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box
from seg_research.core.video import read_image
from seg_research.records.schema import TurnRecord
from seg_research.viewer.text import shorten
from seg_research.viewer.thumbnails import Picture, embed

FOUND_WIDTH_PX = 132
MAX_FOUND = 6
TURN_CHARS, THINKING_CHARS, LINE_CHARS = 4000, 3000, 600


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn of the policy or what it was shown in return.

    Attributes:
        by_policy: False for observations.
        label: kind of action or outcome.
        state: ok, warn, bad or plain; colours the label.
        line: the action in words, or the text that was shown.
        thinking: of the policy, before its action.
        raw: the turn as written; empty where `line` says it all.
    """

    by_policy: bool
    label: str
    state: str
    line: str
    thinking: str = ""
    raw: str = ""
    pictures: tuple[Picture, ...] = ()


def view_turn(turn: TurnRecord, found_pictures: Mapping[str, Path]) -> TurnView:
    """Lay out one turn; `found_pictures` holds files by the source a search names them by, other
    sources are taken for paths.
    """
    if not turn.by_policy:
        pictures = tuple(_found(image.source, found_pictures) for image in turn.images[:MAX_FOUND])
        state = {"ok": "ok", "empty": "warn", "": "plain"}.get(turn.outcome, "bad")
        return TurnView(
            False,
            shorten(turn.outcome or "shown", 24),
            state,
            shorten(turn.text, TURN_CHARS),
            pictures=pictures,
        )
    label, state, line = describe_action(turn.action or {})
    return TurnView(
        True,
        label,
        state,
        line,
        shorten(turn.thinking or "", THINKING_CHARS),
        shorten(turn.text, TURN_CHARS),
    )


def describe_action(action: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return label, state and one line for an action in its JSON form."""
    match action:
        case {"kind": "search", "query": query}:
            return (
                shorten(str(action.get("tool", "search")).replace("_", " "), 24),
                "plain",
                shorten(str(query), LINE_CHARS),
            )
        case {"kind": "keyframe", "frame_id": frame_id}:
            return "key frame", "plain", shorten(f"frame {frame_id}", 40)
        case {"kind": "answer", "objects": []}:
            return "answer", "plain", "the target is not in the video"
        case {"kind": "answer", "objects": list(objects)}:
            described = [_describe_object(item) for item in objects[:8] if isinstance(item, dict)]
            return "answer", "plain", "; ".join(described)
        case {"kind": "fault"}:
            line = f"{action.get('fault', 'fault')}: {action.get('detail', '')}".replace("_", " ")
            return "malformed", "bad", shorten(line, LINE_CHARS)
        case {"kind": kind}:
            return shorten(str(kind), 24), "plain", ""
        case _:
            return "turn", "plain", ""


def _describe_object(item: Mapping[str, Any]) -> str:
    box = read_box(item.get("box_norm1000"))
    where = f"box {' '.join(f'{v:g}' for v in box.as_list())}" if box else "no box"
    given = item.get("points_norm1000")
    pairs = (
        [p for p in given if isinstance(p, list) and len(p) == 2 and all(map(_is_number, p))]
        if isinstance(given, list)
        else []
    )
    return where + "".join(f", point {x:g} {y:g}" for x, y in pairs[:8])


def _found(source: str, found_pictures: Mapping[str, Path]) -> Picture:
    """Embed a picture the policy was shown; where the file is not at hand, name it only."""
    path = str(found_pictures.get(source, source))
    name = shorten(os.path.basename(path) or path, 60)  # noqa: PTH119 - may be an address, not a path
    if os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, never raises, whatever the string
        with suppress(UsageError):
            return embed(read_image(Path(path)), FOUND_WIDTH_PX, name, quality=70)
    return Picture("", 0, 0, name)


def read_box(value: Any) -> Norm1000Box | None:
    """Read [x1, y1, x2, y2] in thousandths; None where it is anything else."""
    if (
        not isinstance(value, list | tuple)
        or len(value) != 4
        or not all(_is_number(v) for v in value)
    ):
        return None
    try:
        return Norm1000Box(*value)
    except ValueError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1000
