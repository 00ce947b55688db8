"""The reader of model turns: exact on what is valid, a typed fault on everything else, never an
exception.

Longer than 400 lines because the cases of one parser are read side by side.
"""

import json
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.episode.action import FormatFault
from seg_research.recipes.seg_research import grammar as parser
from seg_research.recipes.seg_research.actions import (
    Answer,
    FaultKind,
    ObjectRegion,
    Search,
    SearchKind,
    ShowFrame,
)
from seg_research.recipes.seg_research.grammar import (
    MAX_OBJECTS,
    MAX_PAYLOAD_CHARS,
    MAX_QUERY_CHARS,
    STOP_STRINGS,
    parse_turn,
)

BOX, POINT = Norm1000Box(10, 20, 300, 400), Norm1000Point(50, 60)
REGION = '"bbox_2d": [10, 20, 300, 400], "point_2d": [50, 60]'


def search(body: str) -> str:
    return f"<search>{body}</search>"


def answer(body: str) -> str:
    return f"<answer>{body}</answer>"


def query(text: str) -> str:
    return search(json.dumps({"name": "text_search", "query": text}))


VALID = [
    (query("Velmora"), Search(SearchKind.TEXT, "Velmora")),
    (search('{"query": "Velmora", "name": "image_search"}'), Search(SearchKind.IMAGE, "Velmora")),
    (
        search('\n {"name":"text_search",\n"query":"two  \\n words "} '),
        Search(SearchKind.TEXT, "two words"),
    ),
    (search('{"name": "text_search", "query": "a", "top_k": 99}'), Search(SearchKind.TEXT, "a")),
    (query("who is 山田 <3 {x}?"), Search(SearchKind.TEXT, "who is 山田 <3 {x}?")),
    (query("a <|im_end|> b"), Search(SearchKind.TEXT, "a b")),
    ("<keyframe> 3 </keyframe>", ShowFrame(3)),
    ("<keyframe>\n007\n</keyframe>", ShowFrame(7)),
    ("<keyframe>999999999</keyframe>", ShowFrame(999999999)),
    ("<keyframe> -1 </keyframe>", Answer(())),
    (answer(f"{{{REGION}}}"), Answer((ObjectRegion(BOX, (POINT,)),))),
    (answer(f"\n[{{{REGION}}}]\n"), Answer((ObjectRegion(BOX, (POINT,)),))),
    (answer(f"[{{{REGION}}}, {{{REGION}}}]"), Answer((ObjectRegion(BOX, (POINT,)),) * 2)),
    (
        answer('{\n "point_2d": [50, 60],\n "bbox_2d": [10, 20,\n 300, 400]}'),
        Answer((ObjectRegion(BOX, (POINT,)),)),
    ),
    (
        answer('{"bbox_2d": [0, 0.5, 1e3, 1000], "point_2d": [0, 1000]}'),
        Answer((ObjectRegion(Norm1000Box(0, 0.5, 1000, 1000), (Norm1000Point(0, 1000),)),)),
    ),
    (
        answer('{"bbox_2d": [10, 20, 300, 400], "points_2d": [[50, 60], [70, 80]]}'),
        Answer((ObjectRegion(BOX, (POINT, Norm1000Point(70, 80))),)),
    ),
    (
        answer(f'{{{REGION}, "neg_point_2d": [1, 2]}}'),
        Answer((ObjectRegion(BOX, (POINT,), (Norm1000Point(1, 2),)),)),
    ),
    (
        answer(f'{{{REGION}, "neg_points_2d": [[1, 2], [3, 4]]}}'),
        Answer((ObjectRegion(BOX, (POINT,), (Norm1000Point(1, 2), Norm1000Point(3, 4))),)),
    ),
]


@pytest.mark.parametrize(("text", "action"), VALID)
def test_valid_turns_are_read_exactly(text, action):
    assert parse_turn(text).action == action
    read = parse_turn(f"<thinking>\n because \n</thinking>\n{text}<|im_end|>\n")
    assert read == type(read)(action, "because")


FAULTS = [
    ("", FaultKind.NO_ACTION),
    ("I do not know", FaultKind.NO_ACTION),
    ("<thinking> only this </thinking>", FaultKind.NO_ACTION),
    ("<thinking>a</thinking><thinking>b</thinking>", FaultKind.NO_ACTION),
    ("< answer> {} </ answer>", FaultKind.NO_ACTION),
    ("<ANSWER> {} </ANSWER>", FaultKind.NO_ACTION),
    (f"<thinking> then {answer('{' + REGION + '}')} it is </thinking>", FaultKind.NO_ACTION),
    ("<information> <keyframe </information>", FaultKind.NO_ACTION),
    ("<keyframe>1</keyframe><keyframe>2</keyframe>", FaultKind.SEVERAL_ACTIONS),
    (f"<keyframe>1</keyframe>{answer('{' + REGION + '}')}", FaultKind.SEVERAL_ACTIONS),
    (
        "<thinking>a</thinking><thinking>b</thinking><keyframe>1</keyframe>",
        FaultKind.SEVERAL_ACTIONS,
    ),
    ("<keyframe>1</keyframe><thinking>late</thinking>", FaultKind.SEVERAL_ACTIONS),
    ("<keyframe> 1", FaultKind.UNCLOSED_TAG),
    ("<thinking> <keyframe>1</keyframe>", FaultKind.UNCLOSED_TAG),
    ("1 </keyframe>", FaultKind.BAD_NESTING),
    ("</thinking> <keyframe>1</keyframe>", FaultKind.BAD_NESTING),
    ("<answer><keyframe>1</keyframe></answer>", FaultKind.BAD_NESTING),
    ("<answer><answer>1</answer></answer>", FaultKind.BAD_NESTING),
    ("<search> x </answer>", FaultKind.BAD_NESTING),
    ("<search><thinking>late</thinking>{}</search>", FaultKind.BAD_NESTING),
    (search(""), FaultKind.BAD_JSON),
    (search("Velmora"), FaultKind.BAD_JSON),
    (search("{'name': 'text_search', 'query': 'a'}"), FaultKind.BAD_JSON),
    (answer(f"{{{REGION}}} {{{REGION}}}"), FaultKind.BAD_JSON),
    (answer("[" * 16_000), FaultKind.BAD_JSON),
    (answer('{"a":' * 3_000), FaultKind.BAD_JSON),
    (answer('{"bbox_2d": [NaN, 0, 5, 5], "point_2d": [1, 1]}'), FaultKind.BAD_JSON),
    (answer('{"bbox_2d": [-Infinity, 0, 5, Infinity], "point_2d": [1, 1]}'), FaultKind.BAD_JSON),
    (answer('{"bbox_2d": [' + "9" * 5_000 + ', 0, 5, 5], "point_2d": [1, 1]}'), FaultKind.BAD_JSON),
    (search("[]"), FaultKind.BAD_FIELDS),
    (search('["text_search", "a"]'), FaultKind.BAD_FIELDS),
    (search('{"name": "text_search"}'), FaultKind.BAD_FIELDS),
    (search('{"name": "text_search", "query": ["a"]}'), FaultKind.BAD_FIELDS),
    (search('{"name": null, "query": "a"}'), FaultKind.BAD_FIELDS),
    (answer("null"), FaultKind.BAD_FIELDS),
    (answer("[]"), FaultKind.BAD_FIELDS),
    (answer("[[10, 20, 300, 400]]"), FaultKind.BAD_FIELDS),
    (answer('{"point_2d": [1, 1]}'), FaultKind.BAD_FIELDS),
    (answer('{"bbox_2d": [10, 20, 300, 400]}'), FaultKind.BAD_FIELDS),
    (answer('{"bbox_2d": [10, 20, 300, 400], "point_2_d": [50, 60]}'), FaultKind.BAD_FIELDS),
    (answer('{"bbox_2d": [10, 20, 300, 400], "points_2d": []}'), FaultKind.BAD_FIELDS),
    (answer(json.dumps([{}] * (MAX_OBJECTS + 1))), FaultKind.BAD_FIELDS),
    (search('{"name": "shell", "query": "ls"}'), FaultKind.UNKNOWN_TOOL),
    (search('{"name": "TEXT_SEARCH", "query": "ls"}'), FaultKind.UNKNOWN_TOOL),
    (query(""), FaultKind.EMPTY_QUERY),
    (query(" \n\t "), FaultKind.EMPTY_QUERY),
    (query("<|im_end|>"), FaultKind.EMPTY_QUERY),
    (query("\x00\u200b\u202e\ud800"), FaultKind.EMPTY_QUERY),
    ("<keyframe></keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> [2] </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> -2 </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> - 1 </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> −1 </keyframe>", FaultKind.BAD_FRAME),
    (
        answer('{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [10, 20, 300, 400], "point_2d": [50, 60]}'),
        FaultKind.BAD_JSON,
    ),
    ('<search> {"name": "text_search", "query": "a", "query": "b"} </search>', FaultKind.BAD_JSON),
    ("<keyframe> 1.0 </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> 1 2 </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> ٣ </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> 1_0 </keyframe>", FaultKind.BAD_FRAME),
    ("<keyframe> 1000000000 </keyframe>", FaultKind.BAD_FRAME),
    *(
        (answer(f'{{"bbox_2d": {box}, "point_2d": [1, 1]}}'), FaultKind.BAD_BOX)
        for box in (
            "null",
            '"10 20 300 400"',
            "[1, 2, 3]",
            "[1, 2, 3, 4, 5]",
            "[1, 2, 3, true]",
            '[1, 2, 3, "4"]',
            "[[1, 2], [3, 4]]",
            "[0, 0, 0, 0]",
            "[5, 5, 5, 9]",
            "[9, 9, 5, 5]",
            "[-1, 0, 5, 5]",
            "[0, 0, 5, 1000.5]",
            "[0, 0, 5, 1e999]",
            f"[0, 0, 5, {10**400}]",
        )
    ),
    *(
        (answer(f'{{"bbox_2d": [0, 0, 5, 5], {points}}}'), FaultKind.BAD_POINT)
        for points in (
            '"point_2d": null',
            '"point_2d": []',
            '"point_2d": [[1, 1]]',
            '"point_2d": [1, 1, 1]',
            '"point_2d": [true, false]',
            '"point_2d": [1, 1001]',
            '"point_2d": [1, -0.5]',
            f'"point_2d": [1, {10**400}]',
            '"points_2d": [1, 1]',
            '"points_2d": {"x": 1}',
            f'"points_2d": {[[1, 1]] * (MAX_OBJECTS + 1)}',
            '"point_2d": [1, 1], "neg_point_2d": [1]',
            '"point_2d": [1, 1], "neg_points_2d": [[1, 1], [1, 1e9]]',
        )
    ),
    (query("a" * (MAX_QUERY_CHARS + 1)), FaultKind.TOO_LONG),
    (search(" " * (MAX_PAYLOAD_CHARS + 1)), FaultKind.TOO_LONG),
    (answer("[" * 10**6), FaultKind.TOO_LONG),
]


@pytest.mark.parametrize(
    ("text", "kind"), FAULTS, ids=[f"{kind}-{n}" for n, (_, kind) in enumerate(FAULTS)]
)
def test_faults_are_typed(text, kind):
    action = parse_turn(text).action
    assert isinstance(action, FormatFault)
    assert action.fault is kind


def test_every_kind_of_fault_is_reached():
    assert {kind for _, kind in FAULTS} == set(FaultKind)


def test_the_thought_of_a_malformed_turn_is_kept():
    assert parse_turn("<thinking> hm </thinking> <keyframe> [2] </keyframe>").thinking == "hm"
    assert parse_turn("<thinking> hm </thinking>").thinking == "hm"


def test_only_a_thought_before_the_action_is_a_thought():
    assert parse_turn("so: <keyframe> 2 </keyframe>").thinking is None
    assert parse_turn("<thinking>  </thinking> <keyframe> 2 </keyframe>").thinking == ""


def test_a_thought_about_an_answer_is_no_answer():
    text = (
        f"<thinking> maybe {answer('{' + REGION + '}')} <search> <keyframe> 9 </keyframe>"
        " </thinking> <keyframe> 2 </keyframe>"
    )
    assert parse_turn(text).action == ShowFrame(2)


def test_a_query_at_the_limit_is_kept_whole():
    assert parse_turn(query("a" * MAX_QUERY_CHARS)).action == Search(
        SearchKind.TEXT, "a" * MAX_QUERY_CHARS
    )


@given(st.text(st.characters(exclude_categories=())))
def test_a_query_can_always_be_sent_and_written_down(text):
    action = parse_turn(query(text)).action
    if isinstance(action, Search):
        assert action.query.encode("utf-8")
        assert action.query == " ".join(action.query.split())
        assert "<|" not in action.query
        assert not any(ord(character) < 32 for character in action.query)


def test_every_stop_string_closes_an_action():
    assert sorted(STOP_STRINGS) == ["</answer>", "</keyframe>", "</search>"]


PIECES = st.sampled_from(
    [
        f"<{slash}{name}>"
        for slash in ("", "/")
        for name in ("thinking", "search", "keyframe", "answer", "information")
    ]
    + [
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        ",",
        ":",
        "NaN",
        "-1",
        "1e999",
        str(10**30),
        "true",
        "null",
        "\x00",
        "\ud800",
        "<|im_end|>",
    ]
    + ['"name"', '"query"', '"text_search"', '"bbox_2d"', '"point_2d"', f"{{{REGION}}}", "7", "a"]
)
any_text = st.text(st.characters(exclude_categories=()))


@settings(max_examples=400)
@given(
    st.lists(PIECES | any_text).map("".join)
    | any_text.map(answer)
    | any_text.map(search)
    | any_text.map("<keyframe>{}</keyframe>".format)
)
def test_any_text_gives_an_action_or_a_fault(text):
    read = parse_turn(text)
    assert isinstance(read.action, Search | ShowFrame | Answer | FormatFault)
    assert read.thinking is None or read.thinking in text
    if isinstance(read.action, FormatFault):
        assert len(read.action.detail) < 200
        assert "\n" not in read.action.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                [
                    "bbox_2d",
                    "point_2d",
                    "points_2d",
                    "neg_point_2d",
                    "neg_points_2d",
                    "name",
                    "query",
                ]
            ),
            children,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_gives_an_action_or_a_fault(value):
    for text in (answer(json.dumps(value)), search(json.dumps(value))):
        assert isinstance(parse_turn(text).action, Search | Answer | FormatFault)


@given(st.lists(st.integers(0, 1000), min_size=6, max_size=6))
def test_every_box_and_point_in_range_is_read_as_written(numbers):
    x1, y1, x2, y2, x, y = numbers
    action = parse_turn(
        answer(json.dumps({"bbox_2d": numbers[:4], "point_2d": numbers[4:]}))
    ).action
    if x1 < x2 and y1 < y2:
        assert action == Answer(
            (ObjectRegion(Norm1000Box(x1, y1, x2, y2), (Norm1000Point(x, y),)),)
        )
    else:
        assert action == FormatFault(FaultKind.BAD_BOX, action.detail)


ADVERSARIAL = {
    "open tags": "<answer>",
    "close tags": "</answer>",
    "almost tags": "</thinkin",
    "open thoughts": "<thinking>",
    "closed thoughts": "<thinking></thinking>",
    "actions": "<search></search>",
    "angles": "<",
    "control tokens": "<|",
    "spaces": " ",
    "brackets": "[",
    "quotes": '"',
    "surrogates": "\ud83d",
}


@pytest.mark.parametrize("piece", ADVERSARIAL.values(), ids=ADVERSARIAL)
@pytest.mark.parametrize(
    "frame",
    [
        "{}",
        "<answer>{}</answer>",
        "<search>{}</search>",
        "<thinking>{}</thinking><keyframe> {} </keyframe>",
    ],
)
def test_five_megabytes_of_anything_are_read_to_the_end(piece, frame):
    flood = piece * (5_000_000 // len(piece) // frame.count("{}"))
    assert isinstance(parse_turn(frame.replace("{}", flood)).action, FormatFault)


def _steps(text: str) -> int:
    """Count the lines of Python that reading a text takes."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse_turn(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("piece", ADVERSARIAL.values(), ids=ADVERSARIAL)
@pytest.mark.parametrize("frame", ["{}", "<answer>{}</answer>", "<thinking>{}</thinking>"])
def test_twice_the_text_takes_at_most_twice_the_steps(piece, frame):
    once, twice = (_steps(frame.replace("{}", piece * n)) for n in (1_000, 2_000))
    assert twice <= 2 * once


def test_no_pattern_can_look_at_a_character_more_than_a_fixed_number_of_times():
    # Line counts do not see into a regular expression: bounded or literal repetition is what keeps
    # those linear.
    for name, pattern in vars(parser).items():
        if isinstance(pattern, re.Pattern):
            assert not re.search(r"[*+]|\{\d*,\}", pattern.pattern), name


def test_a_payload_beyond_the_limit_never_reaches_the_json_reader(monkeypatch):
    read: list[int] = []
    monkeypatch.setattr(parser.json, "loads", lambda body, **_: read.append(len(body)))
    parse_turn(answer("1" * (MAX_PAYLOAD_CHARS + 1)))
    parse_turn(answer("1" * MAX_PAYLOAD_CHARS))
    assert read == [MAX_PAYLOAD_CHARS]
