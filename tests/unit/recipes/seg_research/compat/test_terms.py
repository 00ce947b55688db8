"""Each accident of the original, on transcripts written by hand. Numbers are those its own
functions gave (findings C1, D6).
"""

import json
import math
from dataclasses import replace

import pytest

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.data.sample import GroundTruth, TargetOnFrame
from seg_research.episode.transcript import (
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    Transcript,
)
from seg_research.recipes.seg_research.compat import terms as compat
from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.rewards.similarity import Similarity
from seg_research.testing.fakes import WordEncoder

TARGET = {"bbox_2d": [100, 100, 300, 500], "point_2d": [200, 300], "max_conn_area": 0.75}
TRUTH = GroundTruth.of_one(
    {3: TargetOnFrame(Norm1000Box(100, 100, 300, 500), Norm1000Point(200, 300), 0.8, 0.75)}
)
EXACT = '{"bbox_2d": [100, 100, 300, 500], "point_2d": [200, 300]}'

THOUGHT = "<thinking> t </thinking>\n"
KEYFRAME = THOUGHT + "<keyframe> 3 </keyframe>"
ANSWER = f"{THOUGHT}<answer> {EXACT} </answer>"
SEARCH = THOUGHT + '<search> {"name": "text_search", "query": "who"} </search>'


def episode(*texts):
    """Model turns and observations in turn."""
    turns = []
    for index, text in enumerate(texts):
        shown = Observation(Message("user", (Text(text),)), "any", Outcome.OK)
        parsed = parse_turn(text)
        turns.append(shown if index % 2 else ModelTurn(text, parsed.action, parsed.thinking))
    return Transcript("x", (), tuple(turns), StopReason.ANSWERED)


def outcome(*texts, truth=TRUTH):
    return tuple(term(episode(*texts), truth) for term in compat.outcome_terms())


def answered(body, keyframe="3"):
    return outcome(f"<keyframe>{keyframe}</keyframe>", "shown", f"<answer>{body}</answer>")


def well_formed(*texts):
    return compat.well_formed(compat.read.decoded_response(episode(*texts)))


def tapering(*texts):
    return compat.TaperingOfText()(episode(*texts), TRUTH)


def first_query(*texts):
    return compat.first_text_query(episode(*texts))


def box(*corners):
    return json.dumps({"bbox_2d": list(corners), "point_2d": [200, 300]})


def test_an_ordinary_episode():
    turns = SEARCH, "found", KEYFRAME, "shown", ANSWER
    assert outcome(*turns) == (1, 1, 1, 0.75)
    assert well_formed(*turns) == 1
    assert tapering(*turns) == pytest.approx(0.91)
    assert first_query(*turns) == "who"


def test_tags_in_an_observation_pay_a_silent_policy():
    turns = "nothing to say", KEYFRAME + ANSWER
    assert outcome(*turns) == (1, 1, 1, 0.75)
    assert well_formed(*turns) == 1


def test_seven_searches_without_an_answer_pay_more_than_five_with_a_wrong_one():
    silent = tapering(*[SEARCH, "found"] * 7)
    wrong = tapering(*[SEARCH, "found"] * 5, KEYFRAME, "shown", ANSWER.replace("100", "900"))
    assert silent == pytest.approx(0.9997813)
    assert wrong == pytest.approx(0.999271)


def test_ten_empty_searches_count():
    assert tapering(*[THOUGHT + "<search></search>", ""] * 10) == pytest.approx(0.999994, abs=1e-6)


def test_a_budget_of_ten():
    eleven = tapering(*[SEARCH, "found"] * 11)
    assert eleven == tapering(*[SEARCH, "found"] * 10) == 1 - (1 - 0.7) ** 10.0


def test_searches_without_a_thought_do_not_count():
    assert tapering(SEARCH.removeprefix(THOUGHT), "found") == 0


def test_a_thought_reaches_over_everything_to_the_next_search():
    # One thought tag in the first turn; the observation closes it again right before a search of
    # its own.
    assert tapering(THOUGHT, "</thinking> <search> x </search>") == pytest.approx(0.7)


def test_an_answer_over_several_lines_is_well_formed_and_earns_nothing():
    spread = f"{THOUGHT}<answer>\n{EXACT}\n</answer>"
    assert outcome(KEYFRAME, "shown", spread) == (0, 0, 0, 0)
    assert well_formed(KEYFRAME, "shown", spread) == 1


def test_a_refused_key_frame_before_the_right_one_costs_everything():
    assert outcome(KEYFRAME.replace("3", "4"), "not offered", KEYFRAME, "shown", ANSWER) == (
        0,
        0,
        0,
        0,
    )


def test_order_is_not_checked():
    turns = ANSWER, "go on", KEYFRAME
    assert outcome(*turns) == (1, 1, 1, 0.75)
    assert well_formed(*turns) == 1


def test_the_first_of_two_answers_counts():
    wrong = ANSWER.replace("[100, 100, 300, 500]", "[800, 800, 900, 900]")
    assert outcome(KEYFRAME, "shown", wrong + ANSWER) == (0, 0, 0, 0.75)
    assert outcome(KEYFRAME, "shown", ANSWER + wrong) == (1, 1, 1, 0.75)


@pytest.mark.parametrize("keyframe", ["[3]", "-1", "3 4", "", "3.0"])
def test_a_key_frame_that_is_no_number_does_not_exist(keyframe):
    assert answered(EXACT, keyframe) == (0, 0, 0, 0)
    assert outcome(f"<keyframe>{keyframe}</keyframe>", "refused", KEYFRAME + ANSWER) == (
        1,
        1,
        1,
        0.75,
    )


@pytest.mark.parametrize("keyframe", ["03", "٣", "4"])
def test_a_key_frame_counts_as_it_is_written(keyframe):
    assert answered(EXACT, keyframe) == (0, 0, 0, 0)


@pytest.mark.parametrize("body", ["5", "null", "[]", '"x"', "{}", '{"bbox_2d": 3}', "NaN"])
def test_any_json_earns_the_key_frame(body):
    assert answered(body) == (0, 0, 0, 0.75)


@pytest.mark.parametrize("body", ["", "{", EXACT + " // sure", "[" * 100_000, "1" * 5000])
def test_no_json_earns_nothing(body):
    assert answered(body) == (0, 0, 0, 0)


def test_coordinates_beyond_the_fourth_and_further_keys_are_ignored():
    body = '{"bbox_2d": [100, 100, 300, 500, 7], "point_2d": [200, 300, 7], "label": 1}'
    assert answered(body) == (1, 1, 1, 0.75)
    assert well_formed(KEYFRAME, "shown", f"{THOUGHT}<answer>{body}</answer>") == 0


def test_a_missing_point_costs_the_point_alone():
    assert answered('{"bbox_2d": [100, 100, 300, 500], "point_2_d": [200, 300]}') == (1, 1, 0, 0.75)


def test_the_last_of_two_equal_keys_counts():
    assert answered(
        '{"bbox_2d": [0, 0, 0, 0], "bbox_2d": [100, 100, 300, 500], "point_2d": [0, 0], "point_2d":'
        " [200, 300]}"
    ) == (
        1,
        1,
        1,
        0.75,
    )


@pytest.mark.parametrize(
    "body",
    [
        '{"bbox_2d": [NaN, NaN, NaN, NaN], "point_2d": [NaN, NaN]}',
        '{"bbox_2d": [-Infinity, -Infinity, Infinity, Infinity], "point_2d": [1e999, 0]}',
        box(300, 500, 100, 100),
        box(0, 0, 0, 0),
        box(10**400, 10**400, 10**401, 10**401),
        box("100", "100", "300", "500"),
    ],
)
def test_boxes_of_nothing(body):
    assert answered(body) == (0, 0, 0, 0.75)


def test_a_box_without_bounds_holds_the_point():
    assert answered(
        '{"bbox_2d": [-Infinity, -1e999, Infinity, 1e999], "point_2d": [200, 300]}'
    ) == (0, 0, 1, 0.75)


def test_booleans_are_numbers():
    body = '{"bbox_2d": [true, true, false, false], "point_2d": [true, false]}'
    assert well_formed(KEYFRAME, "shown", f"{THOUGHT}<answer>{body}</answer>") == 1


@pytest.mark.parametrize(
    ("wrong_box", "expected"),
    [
        # Both ends count: these are 101 of 201 columns, where a plain area would be 100 of 200, a
        # half and no more.
        ((100, 100, 200, 500), (1, 0)),
        ((100, 100, 199, 500), (0, 0)),
        ((100, 100, 339, 500), (1, 1)),  # 39 / 4
        ((110, 110, 310, 510), (1, 0)),  # exactly 10
        ((109, 110, 310, 510), (1, 1)),
    ],
)
def test_thresholds_of_the_box(wrong_box, expected):
    assert answered(box(*wrong_box))[:2] == expected


@pytest.mark.parametrize(
    ("point", "expected"),
    [([260, 380], 0), ([260, 379], 1), ([300, 300], 0), ([101, 300], 1), ([99, 300], 0)],
)
def test_the_point_must_lie_in_its_own_box_and_less_than_100_from_the_deepest_one(point, expected):
    assert answered(json.dumps({"bbox_2d": [100, 100, 300, 500], "point_2d": point}))[2] == expected


def test_a_target_without_area_can_still_be_named():
    thin = {"bbox_2d": [100, 100, 100, 500], "point_2d": [100, 300], "max_conn_area": 1.0}
    truth = compat.RecordedTruth({}, recorded={"3": thin})
    body = '{"bbox_2d": [95, 100, 105, 500], "point_2d": [100, 300]}'
    assert outcome(KEYFRAME, "shown", f"<answer>{body}</answer>", truth=truth) == (0, 1, 1, 1)


def test_a_recorded_target_without_its_area_earns_no_key_frame():
    truth = compat.RecordedTruth(
        {}, recorded={"3": {k: v for k, v in TARGET.items() if k != "max_conn_area"}}
    )
    assert outcome(KEYFRAME, "shown", ANSWER, truth=truth) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("search", "query"),
    [
        ('{"query": "who", "name": "text_search"}', None),
        ('{"name": "image_search", "query": "who"}', None),
        ('{"name": "text_search", "query": "a"} and {"name": "text_search", "query": "b"}', "a"),
        ('{ "name": "text_search", "query": "who"}', None),
        ('{"name": "text_search", "query": "say \\"it\\" twice"}', 'say \\"it\\" twice'),
    ],
)
def test_the_query_that_guides(search, query):
    assert first_query(f"<search> {search} </search>") == query


def test_a_space_before_the_brace_lets_the_query_run_on():
    spaced = SEARCH.replace('"}', '" }')
    assert (
        first_query(spaced, "found", SEARCH)
        == 'who" } </search>\nuser\nfound\nassistant\n<thinking> t </thinking>\n<search> '
        + '{"name": "text_search", "query": "who'
    )


def test_validation_takes_the_last_key_frame_and_the_plain_iou():
    turns = (
        KEYFRAME.replace("3", "4"),
        "not offered",
        KEYFRAME,
        "shown",
        ANSWER.replace("300, 500", "200, 500"),
    )
    assert compat.ValidationIoU()(episode(*turns), TRUTH) == 101 * 401 / (201 * 401)
    assert compat.ValidationIoU()(episode(ANSWER), TRUTH) == 0


def test_ablations():
    text = compat.read.decoded_response(episode(*[SEARCH, "found"] * 12, KEYFRAME, "shown", ANSWER))
    assert compat.linear_process(text) == 13
    # What was shown after the key frame breaks the chain; without it the text is one.
    assert compat.binary_process(text) == 0
    assert compat.binary_process(f"{SEARCH}\n{KEYFRAME}\n{ANSWER}\n") == 1


def ask(query):
    return SEARCH.replace("who", query)


def all_terms(*texts, steps, **settings):
    truth = replace(TRUTH, steps=steps)
    terms = compat.compat_terms(
        RewardSettings(mode=Mode.COMPAT, **settings), Similarity(WordEncoder())
    )
    return {name: term(episode(*texts), truth) for name, term in terms.items()}


def test_guidance_judges_the_first_text_query_against_all_steps():
    turns = ask("red kite"), "found", ask("blue boat"), "found"
    assert all_terms(*turns, steps=("old town", "kite red"))["guidance"] == 1
    assert all_terms(*turns, steps=("old town", "boat blue"))["guidance"] == 0
    assert all_terms("silence", steps=("old town",))["guidance"] == 0
    assert all_terms(*turns, steps=())["guidance"] is None


def test_dense_imitation_compares_by_position():
    turns = ask("red kite"), "found", ask("blue boat"), "found", ask("red kite"), "found"
    assert all_terms(*turns, steps=("kite red", "boat blue"))["dense_imitation"] == 2
    assert (
        all_terms(*turns, steps=("boat blue", "kite red", "kite red", "red kite"))[
            "dense_imitation"
        ]
        == 1
    )
    assert all_terms(*turns, steps=())["dense_imitation"] is None


def test_a_budget_of_the_annotated_steps():
    turns = [SEARCH, "found"] * 5
    assert all_terms(*turns, steps=("a", "b"), budget=0)["tapering"] == pytest.approx(0.91)
    assert all_terms(*turns, steps=("a", "b"))["tapering"] == pytest.approx(0.99757)


def test_thresholds_come_from_the_settings():
    turns = (
        KEYFRAME,
        "shown",
        ANSWER.replace("100, 100, 300", "120, 100, 300").replace("200, 300", "230, 300"),
    )
    assert [all_terms(*turns, steps=())[name] for name in ("box_iou", "box_l1", "point")] == [
        1,
        1,
        1,
    ]
    strict = all_terms(*turns, steps=(), iou_threshold=0.95, l1_limit=5.0, point_radius=30.0)
    assert [strict[name] for name in ("box_iou", "box_l1", "point")] == [0, 0, 0]


def test_a_number_of_no_size_is_not_a_crash():
    assert not math.isnan(
        sum(answered('{"bbox_2d": [0, 0, NaN, 1e400], "point_2d": [NaN, Infinity]}'))
    )
