"""A line of ours gives back the transcript that was judged and the truth it was judged by."""

import json
from dataclasses import replace

import pytest

from seg_common.errors import UsageError
from seg_research.recipes.seg_research.compat import decoded_response
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.seg_research.grammar import read_action
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.turns import expert_turns, search_turn
from seg_research.records.reader import read_rollout
from seg_research.records.truth import truth_from_json, truth_to_json
from seg_research.records.writer import episode_row
from seg_research.rewards.rubric import Score
from seg_research.testing.fakes import WordEncoder, play
from seg_research.testing.samples import draw_sample


@pytest.fixture
def sample(tmp_path):
    drawn = draw_sample(tmp_path, frame_ids=(3, 8, 20))
    return replace(drawn, truth=replace(drawn.truth, steps=("find out who", "see whose face")))


async def test_our_own_line_scores_as_the_episode_did(sample):
    turns = [
        search_turn("text_search", "who"),
        search_turn("image_search", "whose face"),
        "no action",
        *expert_turns(sample),
    ]
    finished = await play(sample, turns)
    row = episode_row(sample, finished, final(finished), Score(None, {}), rollout=0)
    rollout = read_rollout(json.loads(json.dumps(row.to_json())), read_action)
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


@pytest.mark.parametrize(
    ("field", "value"),
    [("stop_reason", "tired"), ("turns", [{"role": "user", "text": "x", "outcome": "lost"}])],
)
def test_what_is_malformed_in_our_own_line_is_named(field, value):
    own = {"schema_version": 1, "id": "x", "stop_reason": "answered", "turns": [], "gts": None}
    with pytest.raises(UsageError, match=field):
        read_rollout(own | {field: value}, read_action)


def test_a_line_of_ours_is_not_scored_without_its_recipe():
    own = {"schema_version": 2, "id": "x", "stop_reason": "answered", "turns": [], "gts": None}
    with pytest.raises(UsageError, match="only be scored by the recipe that wrote it"):
        read_rollout(own)


def test_a_truth_of_several_targets_comes_back(sample):
    (target,) = sample.truth.targets
    several = replace(
        sample.truth, targets=(replace(target, target_id="a"), replace(target, target_id="b"))
    )
    fields = json.loads(json.dumps(truth_to_json(several)))
    assert truth_from_json(fields) == several
    assert truth_from_json({"gts": None}) is None
