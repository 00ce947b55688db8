import math

import pytest
from PIL import Image

from seg_research.records.schema import ImageRecord, TurnRecord
from seg_research.viewer.turns import TURN_CHARS, describe_action, read_box, view_turn


def shown(text, outcome="", sources=()):
    images = tuple(ImageRecord(source) for source in sources)
    return TurnRecord("user", text, outcome=outcome, images=images)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            {"kind": "search", "tool": "image_search", "query": "a kite"},
            ("image search", "plain", "a kite"),
        ),
        ({"kind": "keyframe", "frame_id": 12}, ("key frame", "plain", "frame 12")),
        (
            {
                "kind": "answer",
                "objects": [
                    {"box_norm1000": [1, 2, 3, 4], "points_norm1000": [[2, 3]]},
                    {"points_norm1000": [[5, 6]]},
                ],
            },
            ("answer", "plain", "box 1 2 3 4, point 2 3; no box, point 5 6"),
        ),
        (
            {"kind": "fault", "fault": "bad_json", "detail": "not valid"},
            ("malformed", "bad", "bad json: not valid"),
        ),
        ({"kind": "selectinterval"}, ("selectinterval", "plain", "")),
        ({}, ("turn", "plain", "")),
        ({"kind": "answer", "objects": "none"}, ("answer", "plain", "")),
        ({"kind": "answer", "objects": []}, ("answer", "plain", "the target is not in the video")),
        (
            {"kind": "answer", "objects": [7, {"points_norm1000": [[1], "x", [1, "2"]]}]},
            ("answer", "plain", "no box"),
        ),
    ],
)
def test_actions_in_words(action, expected):
    assert describe_action(action) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "1234",
        [1, 2, 3],
        [1, 2, 3, "4"],
        [5, 5, 5, 5],
        [0, 0, 1001, 10],
        [0, 0, math.nan, 9],
        [True, 0, 5, 5],
    ],
)
def test_what_is_no_box_is_none(value):
    assert read_box(value) is None


def test_a_policy_turn_shows_its_thinking_and_what_was_written():
    view = view_turn(
        TurnRecord(
            "assistant",
            "<thinking> why </thinking><keyframe>3</keyframe>",
            "why",
            {"kind": "keyframe", "frame_id": 3},
        ),
        {},
    )
    assert (view.by_policy, view.thinking, view.line) == (True, "why", "frame 3")
    assert view.raw.startswith("<thinking>")


def test_an_observation_shows_its_pictures_where_they_are_at_hand(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not a picture")
    sources = (
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
        "http://example.org/c.png",
        "\0",
        "/dev/zero",
        "x" * 5000,
    )
    view = view_turn(shown("found", "ok", sources), {})
    assert [bool(picture.uri) for picture in view.pictures] == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert view.pictures[2].caption == "c.png"


def test_a_picture_of_the_corpus_is_found_by_its_source(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "kite.png")
    turn = shown("found", "ok", ("image_corpus.jsonl#3", "image_corpus.jsonl#4"))
    kite, absent = view_turn(turn, {"image_corpus.jsonl#3": tmp_path / "kite.png"}).pictures
    assert (bool(kite.uri), kite.caption) == (True, "kite.png")
    assert (absent.uri, absent.caption) == ("", "image_corpus.jsonl#4")


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("ok", "ok"), ("empty", "warn"), ("fault", "bad"), ("infra", "bad"), ("", "plain")],
)
def test_outcomes_are_told_apart(outcome, state):
    assert view_turn(shown("text", outcome), {}).state == state


def test_a_huge_turn_is_cut():
    view = view_turn(shown("a" * 100_000), {})
    assert len(view.line) < TURN_CHARS + 100
    assert "more characters not shown" in view.line
