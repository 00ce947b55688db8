"""Foreign text on its way into the page: control characters made visible, length limited. Escaping
is left to the template engine.
"""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline; soft hyphen; zero-width, line and bidirectional controls
# (not the joiners that Persian, Hindi and emoji are written with); tags; lone surrogates and
# non-characters, which UTF-8 cannot hold or browsers refuse.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def legible(text: str) -> str:
    """Return the text with every invisible or reordering character spelt out, e.g. [U+202E];
    newlines and tabs stay.
    """
    return _INVISIBLE.sub(lambda match: f"[U+{ord(match[0]):04X}]", text.replace("\r\n", "\n"))


def shorten(text: str, limit_chars: int) -> str:
    """Cut long text and say how much is missing."""
    if len(text) <= limit_chars:
        return text
    return f"{text[:limit_chars]}… [{len(text) - limit_chars:,} more characters not shown]"
