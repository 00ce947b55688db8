"""Make foreign text safe to put into a conversation: it must not be able to end a turn, open a
role, or claim a picture.
"""

from __future__ import annotations

import re

_CHAT_TOKEN = re.compile(r"<\|")
_MARKUP = re.compile(
    r"<(/?)(image|video|information|thinking|search|keyframe|answer|tools)>", re.IGNORECASE
)
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Control, formatting and tag characters, and halves of surrogate pairs, which no UTF-8 text and no
tokenizer can hold.
"""


def blank_invisible(text: str) -> str:
    """Replace characters that cannot be seen or encoded by spaces, one for one; tabs and line feeds
    stay.
    """
    return _INVISIBLE.sub(" ", text)


def escape_untrusted(text: str) -> str:
    """Break chat tokens, our tags and invisible characters in text that neither the model nor we
    wrote; it grows by half at most.
    """
    return _MARKUP.sub(r"< \1\2 >", _CHAT_TOKEN.sub("< |", blank_invisible(text)))
