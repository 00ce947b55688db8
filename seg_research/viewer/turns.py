"""Turns of a conversation, ready to be laid out. Strings are cut to size here and escaped later, by
the template engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seg_common.errors import UsageError
from seg_research.core.video import read_image
from seg_research.records.schema import TurnRecord
from seg_research.viewer.actions import describe_action
from seg_research.viewer.text import shorten
from seg_research.viewer.thumbnails import Thumbnail, embed

FOUND_WIDTH_PX = 132
MAX_FOUND = 6
TURN_CHARS, THINKING_CHARS = 4000, 3000

_STATES = {"ok": "ok", "empty": "warn", "": "plain"}
"""Colour of an outcome; any other is bad."""


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
    images: tuple[Thumbnail, ...] = ()


def view_turn(turn: TurnRecord, found_images: Mapping[str, Path]) -> TurnView:
    """Lay out one turn; `found_images` holds files by the source a search names them by, other
    sources are taken for paths.
    """
    if turn.by_policy:
        label, state, line = describe_action(turn.action or {})
        thinking = shorten(turn.thinking or "", THINKING_CHARS)
        return TurnView(True, label, state, line, thinking, shorten(turn.text, TURN_CHARS))
    images = tuple(
        _found(image.file or image.source, image.source, found_images)
        for image in turn.images[:MAX_FOUND]
    )
    label = shorten(turn.outcome or "shown", 24)
    state = _STATES.get(turn.outcome, "bad")
    return TurnView(False, label, state, shorten(turn.text, TURN_CHARS), images=images)


def _found(file: str, source: str, found_images: Mapping[str, Path]) -> Thumbnail:
    """Embed an image the policy was shown; where the file is not at hand, name it only."""
    known = str(found_images.get(source, source))
    name = shorten(os.path.basename(known) or known, 60)  # noqa: PTH119 - may be an address
    for path in (known, file):
        # Unlike Path.is_file, never raises, whatever the string.
        if os.path.isfile(path):  # noqa: PTH113
            with suppress(UsageError):
                return embed(read_image(Path(path)), FOUND_WIDTH_PX, name, quality=70)
    return Thumbnail("", 0, 0, name)
