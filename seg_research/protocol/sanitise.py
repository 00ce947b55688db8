"""Make foreign text safe to put into a conversation: it must not be able to end a turn, open a role, or claim a picture."""

from __future__ import annotations

import re

_CHAT_TOKEN = re.compile(r"<\|")
_MARKUP = re.compile(r"<(/?)(image|video|information|thinking|search|keyframe|answer|tools)>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def neutralise(text: str) -> str:
    """Break chat tokens, our tags and invisible control characters in text that neither the model nor we wrote; length stays about the same."""
    return _MARKUP.sub(r"< \1\2 >", _CHAT_TOKEN.sub("< |", _CONTROL.sub(" ", text)))
