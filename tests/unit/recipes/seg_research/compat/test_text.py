"""One scan finds what the plain lazy expressions find; and the decoded text is the one they were
meant for.
"""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from seg_research.episode.action import FormatFault
from seg_research.episode.transcript import (
    ImageRef,
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    Transcript,
)
from seg_research.recipes.seg_research.actions import FaultKind
from seg_research.recipes.seg_research.compat import text as read

regex = pytest.importorskip(
    "regex", reason="the original searches with the regex package, which comes with transformers"
)

PIECES = (
    *(
        "<thinking>",
        "</thinking>",
        "<search>",
        "</search>",
        "<keyframe>",
        "</keyframe>",
        "<answer>",
        "</answer>",
    ),
    *(" ", "\n", "\x1c", "\u2003", "7", "٣", "-1", "x", "{", '"}'),
    *('{"name": "text_search"', '{"name":\n"text_search", ', '"query": "', '"query":"'),
    *(
        "</thinking>\n<search>",
        "</thinking> <keyframe> 3 </keyframe>",
        "</thinking><answer>",
        "<answer>[1]</answer>",
    ),
)
soups = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)

THOUGHT = r"<thinking>.*?</thinking>\s*"
TEXT_QUERY = r'\{"name":\s*"text_search".*?"query":\s*"(.*?)"\}'
CHAIN = (
    rf"^\s*(?:{THOUGHT}<search>.*?</search>\s*)*{THOUGHT}<keyframe>\s*\d+\s*</keyframe>\s*"
    rf"{THOUGHT}<answer>.*?</answer>\s*$"
)


def group(match):
    return match and match[1]


@given(soups)
@example("<keyframe> 7 </keyframe><keyframe> 3 </keyframe>")
@example("<keyframe>\x1c7</keyframe>")
def test_keyframes(text):
    tag = r"<keyframe>\s*(\d+)\s*</keyframe>"
    assert read.first_keyframe(text) == group(regex.search(tag, text, regex.S))
    assert read.last_keyframe(text) == ([None, *regex.findall(tag, text, regex.S)])[-1]


@given(soups)
@example("<answer>\n<answer>x<answer>y</answer>")
def test_the_first_answer_on_one_line(text):
    assert read.first_answer_on_one_line(text) == group(
        regex.search(r"<answer>(.*?)</answer>", text)
    )


@given(soups)
def test_a_thought_before_a_keyframe(text):
    found = regex.search(THOUGHT + r"<keyframe>\s*(\d+)\s*</keyframe>", text, regex.S)
    assert read.has_thought_before_keyframe(text) == (found is not None)


@given(soups)
@example("<thinking></thinking><answer>\n x </thinking><answer> </answer></answer>")
def test_the_first_answer_after_a_thought(text):
    found = regex.search(THOUGHT + r"<answer>\s*(.*?)\s*</answer>", text, regex.S)
    body = read.first_answer_after_thought(text)
    assert (body if body is None else body.strip()) == (found and found[1].strip())


@given(soups)
@example(
    "<thinking></thinking><search></search></thinking><search></search>"
    "<thinking></thinking><search></search>"
)
@example("<thinking></thinking>\x1c<search></search>")
def test_thoughtful_searches(text):
    assert read.count_thoughtful_searches(text) == len(
        regex.findall(THOUGHT + r"<search>.*?</search>", text, regex.S)
    )


@given(soups)
@example(
    '{"name": "text_search", "query": "a" }\n</search> user {"name": "text_search", "query": "b"}'
)
@example('{"query": "a", "name": "text_search"} "query": "b"}')
def test_text_queries(text):
    assert list(read.text_queries(text)) == regex.findall(TEXT_QUERY, text, regex.S)


@given(soups)
@example(
    "<thinking>a</thinking><search></search><thinking></thinking><keyframe> 3"
    " </keyframe>\n<thinking></thinking><answer>1</answer> \n"
)
@example(
    "<thinking></thinking><keyframe>3</keyframe><thinking></thinking><answer></answer><answer>"
)
@example("<thinking></thinking><keyframe>3</keyframe><thinking></answer></thinking><answer>")
def test_one_chain(text):
    assert read.is_one_chain(text) == (regex.match(CHAIN, text, regex.S) is not None)


def recorded(output):
    return read.decoded_response(
        read.RecordedTranscript("x", (), (), StopReason.NO_ACTION, output=output)
    )


CHAT_PIECES = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|endoftext|>",
    "<|",
    "user\n",
    "assistant\n",
)


@given(st.lists(st.sampled_from([*PIECES, *CHAT_PIECES])))
def test_a_recorded_output_loses_special_tokens_and_nothing_else(pieces):
    assert recorded("".join(pieces)) == re.sub(r"<\|\w+\|>", "", "".join(pieces))


def test_added_tokens_that_are_not_special_stay():
    assert (
        recorded("<think>a</think><tool_call><|fim_prefix|><|box_start|>")
        == "<think>a</think><tool_call><|fim_prefix|>"
    )


def test_pictures_leave_observations_but_not_what_the_policy_wrote():
    output = (
        "a <image><|im_end|>\n<|im_start|>user\nb <image> c<|im_end|>\n<|im_start|>assistant\nd"
        " <image>"
    )
    assert recorded(output) == "a <image>\nuser\nb  c\nassistant\nd <image>"


def test_a_live_transcript_decodes_as_it_was_spliced():
    shown = Message(
        "user", (Text("one "), ImageRef(Image.new("RGB", (1, 1)), "red.png"), Text(" two"))
    )
    fault = FormatFault(FaultKind.NO_ACTION, "")
    turns = (
        ModelTurn("first<|im_end|>", fault),
        Observation(shown, "search", Outcome.OK),
        ModelTurn("last", fault),
    )
    assert (
        read.decoded_response(Transcript("x", (), turns, StopReason.NO_ACTION))
        == "first\nuser\none  two\nassistant\nlast"
    )


SCANS = (
    read.first_keyframe,
    read.last_keyframe,
    read.first_answer_on_one_line,
    read.has_thought_before_keyframe,
    read.first_answer_after_thought,
    read.count_thoughtful_searches,
    lambda text: list(read.text_queries(text)),
    read.is_one_chain,
    recorded,
)


HOSTILE = (
    *PIECES,
    "<",
    "<|im_start|>",
    "<thinking></thinking>",
    "<keyframe>7",
    '"query": " ',
    '{"name": "text_search" "query": "',
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_anything_is_read(piece):
    # Any of these would take hours where each start scans to the end.
    text = "<thinking>" + piece * (1_000_000 // len(piece))
    for scan in SCANS:
        scan(text)
