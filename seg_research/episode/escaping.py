"""Make foreign text safe to put into a conversation: it must not be able to end a turn, open a
role, claim an image, or look like an action or a result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CHAT_TAGS = frozenset(
    {"think", "tool_call", "tool_response", "tools", "image", "video", "audio", "box", "ref"}
)
"""Tags of the chat templates and tokenizers of the models we know, where many are single tokens."""

_CHAT_TOKEN = re.compile(r"<\|")

_IGNORABLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""Unicode's property Default_Ignorable_Code_Point: shown as nothing. Python's standard library does
not know it; the property holds its reserved ranges, so that the list outlives new versions.
"""
_OTHERWISE_UNSEEN = (
    (0x0000, 0x0008),
    (0x000B, 0x001F),
    (0x007F, 0x009F),
    (0x2028, 0x2029),
    (0x2800, 0x2800),
    (0xD800, 0xDFFF),
    (0xFDD0, 0xFDEF),
    (0xFFF9, 0xFFFB),
    (0xFFFE, 0xFFFF),
)
"""Controls, separators of lines and paragraphs, the empty Braille pattern, annotation marks, halves
of surrogate pairs, which no UTF-8 text and no tokenizer can hold, and what is no character.
"""
_INVISIBLE = re.compile(
    "["
    + "".join(
        f"{re.escape(chr(first))}-{re.escape(chr(last))}"
        for first, last in _IGNORABLE + _OTHERWISE_UNSEEN
    )
    + "]"
)


def blank_invisible(text: str) -> str:
    """Replace characters that cannot be seen or encoded by spaces, one for one; tabs and line feeds
    stay.
    """
    return _INVISIBLE.sub(" ", text)


@dataclass(frozen=True, slots=True)
class Escaper:
    """Breaks chat tokens, tags and invisible characters in text that is not the model's nor ours.

    Once is enough, it takes time linear in the text, and the text stays legible; it grows by half
    at most where no tag is shorter than two letters.

    Attributes:
        tags: names of the recipe's tags; those of chat templates (`CHAT_TAGS`) are always broken.
    """

    tags: frozenset[str] = frozenset()
    _markup: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = "|".join(sorted(map(re.escape, CHAT_TAGS | self.tags), key=len, reverse=True))
        # Attributes and a closing slash belong to a tag; another `<` begins a new one.
        markup = re.compile(rf"<(/?)((?:{names})(?:\s[^<>]*|/)?)>", re.IGNORECASE)
        object.__setattr__(self, "_markup", markup)

    def __call__(self, text: str) -> str:
        """Return the text, safe to show."""
        unbroken = _CHAT_TOKEN.sub("< |", blank_invisible(text))
        return self._markup.sub(r"< \1\2 >", unbroken)
