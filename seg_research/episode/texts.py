"""Texts with places for values (`$name`, as in `string.Template`; `$$` is a dollar sign), and the
messages that come of them. A value is put in as it is: nothing inside it is a place again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import Template
from typing import TypeAlias

from pydantic import AfterValidator

from seg_research.episode.transcript import ImageRef, Text

Part: TypeAlias = Text | ImageRef

_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")


def needs(*names: str, may: Sequence[str] = ()) -> AfterValidator:
    """Return the check, for an annotated field, that a text has exactly these places, and perhaps
    those that it `may` have. No text may hold a chat token or stand for an image by itself.
    """

    def check(text: str) -> str:
        template = Template(text)
        if not template.is_valid():
            raise ValueError("a $ begins no place; write $$ for a dollar sign")
        if "<|" in text or "<image>" in text:
            raise ValueError("<| and <image> are the chat template's own; leave them out")
        found = set(template.get_identifiers())
        for name in names:
            if name not in found:
                raise ValueError(f"the place ${name} is missing")
        for name in sorted(found - set(names) - set(may)):
            raise ValueError(
                f"there is no value for ${name}; there are: {', '.join([*names, *may]) or 'none'}"
            )
        return text

    return AfterValidator(check)


def fill(template: str, **values: str | Part | Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts of a message: the text with its places filled."""
    parts: list[Part] = []
    end = 0
    for place in Template.pattern.finditer(template):
        parts.append(Text(template[end : place.start()]))
        value = "$" if place["escaped"] else values[place["named"] or place["braced"]]
        if isinstance(value, str):
            parts.append(Text(value))
        elif isinstance(value, Text | ImageRef):
            parts.append(value)
        else:
            parts += value
        end = place.end()
    return joined([*parts, Text(template[end:])])


def fill_text(template: str, **values: str) -> str:
    """Return a text with its places filled."""
    return Template(template).substitute(values)


def joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Merge neighbouring texts and leave out empty ones, so that a chat template sees as few parts
    as possible.
    """
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and merged and isinstance(merged[-1], Text):
            merged[-1] = Text(merged[-1].text + part.text)
        elif part != Text(""):
            merged.append(part)
    return tuple(merged)


def tags_in(text: str) -> frozenset[str]:
    """Return the names of the tags that a text uses."""
    return frozenset(_TAG.findall(text))
