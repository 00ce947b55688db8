"""A line gives back the transcript that was judged and the truth it was judged by."""

import json
from dataclasses import replace

import pytest

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Point
from seg_research.episode.transcript import Outcome, StopReason
from seg_research.policies.scripted import expert_script, search_turn
from seg_research.recipes.seg_research.compat import decoded_response
from seg_research.recipes.seg_research.final_answer import count_searches, read_verdict
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.records.seg_research_rollouts import read_rollout
from seg_research.records.writer import episode_record
from seg_research.rewards.rubric import Score
from seg_research.testing.fakes import WordEncoder, play
from seg_research.testing.samples import draw_sample

GTS = {
    "3": {
        "bbox_2d": [100, 100, 300, 500],
        "point_2d": [200, 300],
        "area": 1.0,
        "max_conn_area": 0.75,
    }
}
KEYFRAME = "<thinking> t </thinking>\n<keyframe> 3 </keyframe>"
ANSWER = '<thinking> t </thinking>\n<answer> {"bbox_2d": [100, 100, 300, 500], "point_2d": [200, 300]} </answer>'
SEARCH = '<thinking> t </thinking>\n<search> {"name": "text_search", "query": "who"} </search>'


def told(text):
    return f"<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def line(output, **changes):
    """A line as the original writes it, of a question with frames 3 and 7."""
    prompt = "<|im_start|>user\nframe 3 <image>\nframe 7 <image>\n\nwho?<|im_end|>\n<|im_start|>assistant\n"
    return {
        "input": prompt,
        "output": output,
        "gts": json.dumps(GTS),
        "traj_stop_reason": "model_chose_to_finish",
    } | changes


def outcomes(**fields):
    return [
        observation.outcome for observation in read_rollout(line(**fields)).transcript.observations
    ]


@pytest.fixture
def sample(tmp_path):
    drawn = draw_sample(tmp_path, frame_ids=(3, 8, 20))
    return replace(drawn, truth=replace(drawn.truth, steps=("find out who", "see whose face")))


async def test_our_own_line_scores_as_the_episode_did(sample):
    turns = [
        search_turn("text_search", "who"),
        search_turn("image_search", "whose face"),
        "no action",
        *expert_script(sample, 1),
    ]
    finished = await play(sample, turns)
    record = episode_record(sample, finished, Score(None, {}), rollout=0, keyframe_position=None)
    rollout = read_rollout(json.loads(json.dumps(record)))
    assert rollout.knows_steps
    assert rollout.truth.single().frames == sample.truth.single().frames
    assert [o.outcome for o in rollout.transcript.observations] == [
        o.outcome for o in finished.observations
    ]
    for mode in Mode:
        rubric = build_rubric(RewardSettings(mode=mode), WordEncoder())
        assert rubric.score(rollout.transcript, rollout.truth) == rubric.score(
            finished, sample.truth
        )
    assert decoded_response(rollout.transcript) == decoded_response(finished)


def test_a_key_frame_whose_file_the_original_did_not_find_counts_as_shown():
    found = outcomes(
        output=KEYFRAME + told("Error processing keyframe: no such file") + ANSWER,
        tool_interact_info=[{"valid_action": 0}],
    )
    assert found == [Outcome.OK]


def test_a_key_frame_that_was_not_offered_does_not():
    assert outcomes(output=KEYFRAME.replace("3", "4") + told("choose one of 3, 7") + ANSWER) == [
        Outcome.REJECTED
    ]


def test_a_search_counts_as_the_server_took_it():
    output = SEARCH + told("<information></information>") + SEARCH + told("Error") + ANSWER
    assert outcomes(
        output=output, tool_interact_info=[{"valid_action": 1}, {"valid_action": 0}]
    ) == [Outcome.OK, Outcome.REJECTED]
    assert outcomes(output=output) == [Outcome.OK, Outcome.OK]


@pytest.mark.parametrize(
    ("output", "reason", "stop"),
    [
        (ANSWER, "model_chose_to_finish", StopReason.ANSWERED),
        ("nothing", "model_chose_to_finish", StopReason.NO_ACTION),
        (SEARCH, "max_turns_reached", StopReason.TURN_LIMIT),
        ("<thinking> and so", "max_response_length_reached", StopReason.TURN_TRUNCATED),
        ("", "max_model_len_exceeded", StopReason.TOO_LONG),
    ],
)
def test_why_it_ended(output, reason, stop):
    assert read_rollout(line(output, traj_stop_reason=reason)).transcript.stop is stop


def test_the_last_search_was_not_carried_out():
    assert count_searches(read_rollout(line(SEARCH + told("found") + SEARCH)).transcript) == 1


@pytest.mark.parametrize(
    "output",
    [
        "<|im_start|>assistant\n" + ANSWER,
        KEYFRAME + "<|im_end|><|im_end|>\n<|im_start|>user\nx<|im_start|>user\ny" + ANSWER,
        "a<|im_end|> left over <|im_start|>system\nb\n<|im_end|>\n<|im_start|>assistant",
        KEYFRAME + "<|endoftext|>",
        "\n\n",
        "",
    ],
)
def test_odd_chat_markup_loses_no_text_that_the_original_judged(output):
    plain = (
        output.replace("<|im_start|>", "").replace("<|im_end|>", "").replace("<|endoftext|>", "")
    )
    assert decoded_response(read_rollout(line(output)).transcript) == plain


def test_chat_tokens_inside_an_observation_open_no_turn():
    page = f"<|im_end|>\n<|im_start|>assistant\n{KEYFRAME}{ANSWER}"
    rollout = read_rollout(
        line(SEARCH + told(page) + "nothing", tool_interact_info=[{"obs": page, "valid_action": 1}])
    )
    assert read_verdict(rollout.transcript) == (None, None)


def test_truth_and_steps():
    rollout = read_rollout(line(ANSWER, steps=["find out who"]))
    assert rollout.truth.steps == ("find out who",)
    assert rollout.truth.single().frames[3].point == Norm1000Point(200, 300)
    assert (
        rollout.knows_steps,
        read_rollout(line(ANSWER)).knows_steps,
        read_rollout(line(ANSWER, steps=[])).knows_steps,
    ) == (
        True,
        False,
        True,
    )


def test_a_target_that_our_types_refuse_is_kept_as_it_was_recorded():
    thin = {"3": GTS["3"] | {"bbox_2d": [100, 100, 100, 500]}}
    truth = read_rollout(line(ANSWER, gts=json.dumps(thin))).truth
    assert not truth.single().frames
    assert truth.recorded == thin


def test_a_line_without_truth_has_none():
    assert read_rollout(line(ANSWER, gts=None)).truth is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"output": 7}, "output"),
        ({"gts": "{"}, "gts"),
        ({"gts": "[]"}, "gts"),
        ({"gts": '{"3": 5}'}, "gts"),
        ({"gts": json.dumps({"3": GTS["3"] | {"max_conn_area": "big"}})}, "max_conn_area"),
        ({"gts": json.dumps({"3": GTS["3"] | {"mask": {"png": "x"}}})}, "mask"),
        (
            {
                "gts": json.dumps(
                    {
                        "3": GTS["3"]
                        | {"mask": {"size": [9, 9], "origin": [0, 0], "stride": 1, "png": "x"}}
                    }
                )
            },
            "mask",
        ),
        ({"steps": "find out"}, "steps"),
        ({"num_search": "two"}, "num_search"),
        ({"num_search": float("nan")}, "num_search"),
    ],
)
def test_what_is_malformed_is_named(changes, complaint):
    with pytest.raises(UsageError, match=complaint):
        read_rollout(line(ANSWER) | changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("stop_reason", "tired"), ("turns", [{"role": "user", "text": "x", "outcome": "lost"}])],
)
def test_what_is_malformed_in_our_own_line_is_named(field, value):
    own = {"schema_version": 1, "id": "x", "stop_reason": "answered", "turns": [], "gts": None}
    with pytest.raises(UsageError, match=field):
        read_rollout(own | {field: value})


def test_scores_that_are_no_numbers_are_not_compared():
    recorded = read_rollout(
        line(
            ANSWER,
            score=True,
            iou_score=None,
            process_score=float("nan"),
            keyframe_score=10**400,
            acc=0.5,
        )
    ).recorded
    assert recorded == {"acc": 0.5}
