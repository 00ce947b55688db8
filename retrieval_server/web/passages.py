"""The parts of a text that answer a question: chosen by common words first, then by meaning.

Arrays: N passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retrieval_server.encoder import Encoder, Role

PASSAGE_CHARS = 600
_PARAGRAPH_CHARS = 150
"""Shorter ones, such as headings and list items, join the next."""
_SHORTLIST = 8
"""Passages of a page that are embedded: at 20 ms each (MiniLM, one core), a long page would take
seconds.
"""
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_WORD = re.compile(r"\w+")


def split(text: str) -> list[str]:
    """Cut a text into passages of whole sentences where that is possible, at most `PASSAGE_CHARS`
    long; short paragraphs go together.
    """
    passages: list[str] = []
    current = ""
    for paragraph in text.splitlines():
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            for start in range(0, len(sentence), PASSAGE_CHARS):
                part = sentence[start : start + PASSAGE_CHARS]
                if current and len(current) + 1 + len(part) > PASSAGE_CHARS:
                    passages.append(current)
                    current = ""
                current = f"{current} {part}".strip()
        if len(current) >= _PARAGRAPH_CHARS:
            passages.append(current)
            current = ""
    return [*passages, current] if current else passages


def choose(query: str, passages: Sequence[str], encoder: Encoder, max_chars: int) -> str:
    """Join the passages nearest to a query, in the order of the text, up to a length; the best one
    is always there, cut if need be.
    """
    candidates = _shortlist(query, passages)
    if not candidates:
        return ""
    vectors_ND = encoder.encode([passages[index] for index in candidates], Role.PASSAGE)
    scores_N = vectors_ND @ encoder.encode([query], Role.QUERY)[0]
    chosen: list[int] = []
    num_chars = 0
    for _, index in sorted(zip(-scores_N, candidates, strict=True)):
        length = len(passages[index]) + (3 if chosen else 0)
        if chosen and num_chars + length > max_chars:
            continue
        chosen.append(index)
        num_chars += length
    return " … ".join(passages[index] for index in sorted(chosen))[:max_chars]


def _shortlist(query: str, passages: Sequence[str]) -> list[int]:
    """Name the passages that share most words with the query, earlier ones first among equals."""
    wanted = set(_WORD.findall(query.lower()))
    shared = [len(wanted.intersection(_WORD.findall(passage.lower()))) for passage in passages]
    return sorted(range(len(passages)), key=lambda index: (-shared[index], index))[:_SHORTLIST]
