"""The text that the original searches, and what its regular expressions find in it.

Each reader gives what a plain lazy expression would give, found by one scan: after a failed attempt
no later start can succeed, so that none is tried. White space is Unicode's own property, as the
original's `regex` package has it; `str.isspace` also holds U+001C..U+001F.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from seg_research.episode.transcript import ModelTurn, Observation, Text, Transcript

_SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
    ),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
"""What a Qwen tokenizer leaves out when it decodes without special tokens; its other added tokens
(`<think>`, `<tool_call>`, …) stay.
"""

_SPECIAL = re.compile("|".join(map(re.escape, _SPECIAL_TOKENS)))
_MESSAGE = re.compile(r"<\|im_start\|>(?!assistant\n)[^<]*+(?:<(?!\|im_(?:start|end)\|>)[^<]*+)*+")
_IMAGE = "<image>"

_SPACE = r"[^\S\x1c-\x1f]*+"
_KEYFRAME = re.compile(rf"<keyframe>{_SPACE}(\d++){_SPACE}</keyframe>")
_THOUGHT_THEN_KEYFRAME = re.compile(
    rf"</thinking>{_SPACE}<keyframe>{_SPACE}\d++{_SPACE}</keyframe>"
)
_THOUGHT_THEN_SEARCH = re.compile(rf"</thinking>{_SPACE}<search>")
_THOUGHT_THEN_ANSWER = re.compile(rf"</thinking>{_SPACE}<answer>")
_OPENING_THOUGHT = re.compile(rf"{_SPACE}<thinking>")
_KEYFRAME_THEN_THOUGHT = re.compile(rf"{_THOUGHT_THEN_KEYFRAME.pattern}{_SPACE}<thinking>")
_CLOSING_ANSWER = re.compile(rf"</answer>{_SPACE}\Z")
_TEXT_SEARCH = re.compile(rf'\{{"name":{_SPACE}"text_search"')
_QUERY = re.compile(rf'"query":{_SPACE}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTranscript(Transcript):
    """A transcript that was read from a file of the original's.

    Attributes:
        output: everything after the prompt as it was recorded, chat tokens included, images as
            `<image>`.
    """

    output: str


def decoded_response(transcript: Transcript) -> str:
    """Return everything after the prompt as one text without special tokens: model turns, role
    names and observations; no images.
    """
    if isinstance(transcript, RecordedTranscript):
        return _without_special_tokens(
            _MESSAGE.sub(lambda message: message[0].replace(_IMAGE, ""), transcript.output)
        )
    return _without_special_tokens("".join(map(_spliced, transcript.turns)))


def _without_special_tokens(text: str) -> str:
    return _SPECIAL.sub("", text)


def _spliced(turn: ModelTurn | Observation) -> str:
    if isinstance(turn, ModelTurn):
        return turn.text
    shown = "".join(part.text for part in turn.message.parts if isinstance(part, Text))
    return f"\n{turn.message.role}\n{shown}\nassistant\n"


def first_keyframe(text: str) -> str | None:
    """Return the digits of the first key-frame tag that holds nothing else, as they are written."""
    found = _KEYFRAME.search(text)
    return found and found[1]


def last_keyframe(text: str) -> str | None:
    """Return the digits of the last key-frame tag that holds nothing else."""
    digits = None
    for found in _KEYFRAME.finditer(text):
        digits = found[1]
    return digits


def first_answer_on_one_line(text: str) -> str | None:
    """Return the body of the first answer whose two tags stand on one line."""
    position = 0
    while (opened := text.find("<answer>", position)) >= 0:
        begin = opened + len("<answer>")
        position = text.find("\n", begin)
        line_end = len(text) if position < 0 else position
        end = text.find("</answer>", begin, line_end)
        if end >= 0:
            return text[begin:end]
        position = line_end
    return None


def has_thought_before_keyframe(text: str) -> bool:
    """Tell whether somewhere a thought ends right before a key-frame tag."""
    return _behind_thought(text, _THOUGHT_THEN_KEYFRAME) is not None


def first_answer_after_thought(text: str) -> str | None:
    """Return the body of the first answer that a thought ends right before, over any number of
    lines.
    """
    begin = _behind_thought(text, _THOUGHT_THEN_ANSWER)
    end = -1 if begin is None else text.find("</answer>", begin)
    return None if end < 0 else text[begin:end]


def count_thoughtful_searches(text: str) -> int:
    """Count search tags that a thought ends right before, whatever they hold and whatever came of
    them.
    """
    count = position = 0
    while (begin := _behind_thought(text, _THOUGHT_THEN_SEARCH, position)) is not None:
        position = text.find("</search>", begin)
        if position < 0:
            break
        position += len("</search>")
        count += 1
    return count


def count_search_tags(text: str) -> int:
    """Count opening search tags."""
    return text.count("<search>")


def text_queries(text: str) -> Iterator[str]:
    """Give the queries of text searches. The name must come first; a query ends at the first `"}`,
    whichever turn that stands in.
    """
    position = 0
    while (call := _TEXT_SEARCH.search(text, position)) and (
        query := _QUERY.search(text, call.end())
    ):
        end = text.find('"}', query.end())
        if end < 0:
            return
        yield text[query.end() : end]
        position = end + len('"}')


def is_one_chain(text: str) -> bool:
    """Tell whether the text is a thought, …, a thought with a key frame, directly a thought with an
    answer, and nothing behind it.

    Searches may precede, but so may anything: the expression's first thought is free to hold it.
    """
    opening = _OPENING_THOUGHT.match(text)
    keyframe = opening and _KEYFRAME_THEN_THOUGHT.search(text, opening.end())
    answer = keyframe and _THOUGHT_THEN_ANSWER.search(text, keyframe.end())
    return (
        answer is not None
        and text.find("</answer>", answer.end()) >= 0
        and _CLOSING_ANSWER.search(text) is not None
    )


def _behind_thought(text: str, thought_then: re.Pattern[str], position: int = 0) -> int | None:
    """Return where the first match of `thought_then` behind the first opened thought ends."""
    opened = text.find("<thinking>", position)
    found = thought_then.search(text, opened + len("<thinking>")) if opened >= 0 else None
    return found and found.end()
