"""The expert is perfect by construction, the hostile policy repeats itself, and neither can be put
off its script.
"""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.data.sample import GroundTruth, TargetOnFrame
from seg_research.episode.action import FormatFault
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import FinishReason, Message
from seg_research.policies.scripted import ScriptedConversation, ScriptedPolicy, hostile_script
from seg_research.recipes.seg_research.actions import (
    Answer,
    FaultKind,
    ObjectRegion,
    Search,
    SearchKind,
    ShowFrame,
)
from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.turns import (
    HOSTILE_TURNS,
    answer_turn,
    expert_turns,
    keyframe_turn,
    search_turn,
)
from seg_research.testing.fakes import WordEncoder, play
from seg_research.testing.samples import draw_sample

HOSTILE = hostile_script(SegResearch())


@pytest.fixture
def sample(tmp_path):
    return draw_sample(tmp_path, steps=('who is "Velmora"', "colour of\nVelmora"))


def test_the_expert_searches_every_step_then_looks_then_answers(sample):
    *searches, keyframe, answer = [parse_turn(turn) for turn in expert_turns(sample)]
    assert [read.action for read in searches] == [
        Search(SearchKind.TEXT, 'who is "Velmora"'),
        Search(SearchKind.TEXT, "colour of Velmora"),
    ]
    truth = sample.truth.single().frames[5]
    assert keyframe.action == ShowFrame(5)
    assert answer.action == Answer((ObjectRegion(truth.box, (truth.point,)),))
    assert all(read.thinking for read in (*searches, keyframe, answer))


async def test_the_expert_earns_all_but_the_taper(sample):
    rubric = build_rubric(RewardSettings(), WordEncoder())
    score = rubric.score(await play(sample, expert_turns(sample)), sample.truth)
    assert {name: value for name, value in score.terms.items() if name != "tapering"} == {
        "box_iou": 1,
        "box_l1": 1,
        "point": 1,
        "keyframe": 1,
        "format": 1,
        "guidance": 1,
    }
    # Of the two searches the second brings back the same page: one is useful.
    assert score.terms["tapering"] == pytest.approx(0.91)


def test_of_two_equal_frames_the_expert_takes_the_earlier(sample):
    one = TargetOnFrame(Norm1000Box(0, 0, 10, 10), Norm1000Point(5, 5), 1.0, 1.0)
    tied = dataclasses.replace(
        sample,
        truth=GroundTruth.of_one({7: one, 3: one, 5: dataclasses.replace(one, max_conn_area=0.9)}),
    )
    assert parse_turn(expert_turns(tied)[-2]).action == ShowFrame(3)


@pytest.mark.parametrize("truth", [None, GroundTruth()])
def test_without_the_truth_there_is_no_expert(sample, truth):
    with pytest.raises(
        UsageError, match="sample sample: the scripted expert needs the ground truth"
    ):
        expert_turns(dataclasses.replace(sample, truth=truth))


corner = st.integers(0, 1000)


@given(corner, corner, corner, corner, corner, corner)
def test_an_answer_is_read_back_as_it_was_meant(x1, y1, x2, y2, x, y):
    if not (x1 < x2 and y1 < y2):
        return
    target = TargetOnFrame(Norm1000Box(x1, y1, x2, y2), Norm1000Point(x, y), 1.0, 1.0)
    assert parse_turn(answer_turn(target, "there")).action == Answer(
        (ObjectRegion(target.box, (target.point,)),)
    )


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=200),
    st.sampled_from(SearchKind),
)
def test_a_search_is_read_back_as_it_was_meant(query, kind):
    action = parse_turn(search_turn(query, "hm", kind)).action
    if isinstance(action, FormatFault):
        assert action.fault is FaultKind.EMPTY_QUERY
    else:
        assert action.tool is kind
        visible = [c for c in query if c.isalnum()]
        assert [c for c in action.query if c.isalnum()] == visible


@given(st.integers(0, 999_999_999))
def test_a_key_frame_is_read_back_as_it_was_meant(frame_id):
    assert parse_turn(keyframe_turn(frame_id, "hm")).action == ShowFrame(frame_id)


async def test_a_script_is_said_to_the_end_whatever_is_shown_and_then_there_is_silence():
    conversation = ScriptedConversation(["a", "b"])
    assert await conversation.open(())
    assert await conversation.observe(Message("user", ()))
    assert [await conversation.generate(1) for _ in range(4)] == [
        Generation(text, FinishReason.STOP) for text in ("a", "b", "", "")
    ]
    assert conversation.tokens() is None
    await conversation.close()


async def test_each_conversation_gets_its_own_script(sample):
    policy = ScriptedPolicy(lambda one, rollout: [f"{one.sample_id} {rollout}"])
    assert [(await policy.converse(sample, rollout).generate(9)).text for rollout in (0, 1)] == [
        "sample 0",
        "sample 1",
    ]


def test_hostility_is_reproducible_and_complete(sample):
    scripts = [HOSTILE(sample, rollout) for rollout in range(8)]
    assert scripts == [HOSTILE(sample, rollout) for rollout in range(8)]
    assert len({tuple(script) for script in scripts}) == 8
    assert all(sorted(script) == sorted(HOSTILE_TURNS) for script in scripts)
    assert HOSTILE(dataclasses.replace(sample, sample_id="other"), 0) != scripts[0]


def test_no_hostile_turn_is_an_answer():
    assert not any(isinstance(parse_turn(turn).action, Answer) for turn in HOSTILE_TURNS)
