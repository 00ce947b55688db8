import math

import pytest

from seg_research.viewer.actions import LINE_CHARS, describe_action
from seg_research.viewer.truth import read_box


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            {"kind": "search", "tool": "image_search", "query": "a kite"},
            ("image search", "plain", "a kite"),
        ),
        ({"kind": "keyframe", "frame_id": 12}, ("keyframe", "plain", "frame 12")),
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
        ({"kind": "answer", "objects": "none"}, ("answer", "plain", "none")),
        (
            {"kind": "interval", "first_frame_id": 3, "last_frame_id": 9, "why": "it moves"},
            ("interval", "plain", "first frame 3; last frame 9; why it moves"),
        ),
        (
            {"kind": "zoom", "region": [1, 2.5, 3], "view": {"side": 2}, "left": None},
            ("zoom", "plain", 'region 1 2.5 3; view {"side": 2}'),
        ),
        (
            {
                "kind": "answer",
                "objects": [
                    {
                        "frame_id": 3,
                        "box_norm1000": [1, 2, 3, 4],
                        "negative_points_norm1000": [[9, 8]],
                    }
                ],
            },
            ("answer", "plain", "frame 3, box 1 2 3 4, not 9 8"),
        ),
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


def test_an_action_of_any_size_and_content_stays_a_line():
    action = {"kind": "x" * 99, "numbers": [10**400, math.nan], "text": "a" * 99_999}
    label, _, line = describe_action(action)
    assert len(label) < 80
    assert len(line) < LINE_CHARS + 60
    assert describe_action({"kind": "answer", "objects": [{}] * 50}).line.endswith("42 more")
