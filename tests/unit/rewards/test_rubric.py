"""The rubric of the recipe: what honest work earns. What tricks earn stands in tests/redteam."""

import dataclasses
import json

import pytest

from seg_common.errors import InfraError, InvariantError
from seg_research.episode.transcript import StopReason
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.terms.outcome import BoxIoU, PointHit
from seg_research.recipes.seg_research.turns import (
    answer_turn,
    expert_turns,
    keyframe_turn,
    search_turn,
)
from seg_research.rewards.rubric import Factor, Rubric, Term
from seg_research.testing.fakes import FakeSearcher, WordEncoder, play
from seg_research.testing.samples import draw_sample

PUBLISHED, DENSE = (
    build_rubric(RewardSettings(dense=dense), WordEncoder()) for dense in (False, True)
)
TAPERING_ONE, TAPERING_TWO = 0.7, 0.91

LOOK = search_turn("colour of Velmora", "who is that")
FRAME = keyframe_turn(5, "it shows best here")
TERMS = ["box_iou", "box_l1", "point", "keyframe", "format", "tapering", "guidance"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return draw_sample(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def sample_without_steps(tmp_path_factory):
    return draw_sample(tmp_path_factory.mktemp("videos"), steps=())


def say(payload: object, thought: str = "<thinking> there </thinking>\n") -> str:
    return f"{thought}<answer> {json.dumps(payload)} </answer>"


def target(sample) -> dict[str, list[float]]:
    truth = sample.truth.single().frames[5]
    return {"bbox_2d": truth.box.as_list(), "point_2d": [truth.point.x, truth.point.y]}


def miss() -> str:
    return say({"bbox_2d": [800, 800, 900, 900], "point_2d": [850, 850]})


async def total(sample, turns, rubric=PUBLISHED, **how) -> float:
    score = rubric.score(await play(sample, turns, **how), sample.truth)
    assert all(value is None or 0 <= value <= 1 for value in score.terms.values())
    return score.total


async def test_honest_work_is_paid(sample):
    assert await total(sample, expert_turns(sample)) == pytest.approx(4.5 + 0.5 * TAPERING_TWO)
    assert await total(sample, [LOOK, FRAME, miss()]) == pytest.approx(1 + 0.5 + 0.5 * TAPERING_TWO)
    assert await total(sample, [FRAME, miss()]) == pytest.approx(1 + 0.5 * TAPERING_ONE)
    assert await total(sample, expert_turns(sample), DENSE) == pytest.approx(
        4.75 + 0.25 * TAPERING_TWO
    )


async def test_a_question_without_steps_is_paid_for_the_format(sample_without_steps):
    sample = sample_without_steps
    assert await total(sample, expert_turns(sample)) == pytest.approx(5)
    assert (
        await total(sample, [LOOK, FRAME, miss()])
        == await total(sample, [FRAME, miss()])
        == pytest.approx(2)
    )
    assert await total(sample, [FRAME, say(target(sample), thought="")]) == pytest.approx(4)


async def test_unanswered_searching_is_worth_less_than_any_answer(sample):
    # In the original seven unanswered searches beat five with a wrong answer, and the policy
    # learned it (findings B5b).
    for rubric in (PUBLISHED, DENSE):
        unanswered = await total(sample, [search_turn(f"query {n}", "x") for n in range(7)], rubric)
        assert unanswered < await total(sample, [keyframe_turn(10, "x"), miss()], rubric)


async def test_recovering_from_a_refusal_is_paid_like_getting_it_right_at_once(sample):
    at_once = await total(sample, [FRAME, say(target(sample))])
    assert await total(sample, [keyframe_turn(7, "x"), FRAME, say(target(sample))]) == at_once


async def test_an_answer_over_several_lines_is_paid(sample):
    text = (
        f"<thinking> there </thinking>\n<answer>\n{json.dumps(target(sample), indent=1)}\n</answer>"
    )
    assert await total(sample, [FRAME, text]) == await total(
        sample, [FRAME, answer_turn(sample.truth.single().frames[5], "there")]
    )


async def test_a_failed_service_or_an_unknown_truth_gives_no_score_rather_than_zero(sample):
    failed = await play(sample, [LOOK], searcher=FakeSearcher(error=InfraError("down")))
    fine = await play(sample, expert_turns(sample))
    assert failed.stop is StopReason.INFRA
    for score in (PUBLISHED.score(failed, sample.truth), PUBLISHED.score(fine, None)):
        assert (score.total, score.outcome, score.paid) == (None, None, {})
        assert score.terms == dict.fromkeys(TERMS)


async def test_the_total_is_the_sum_of_what_is_paid(sample, sample_without_steps):
    for question, paid in (
        (sample, set(TERMS) - {"format"}),
        (sample_without_steps, set(TERMS) - {"tapering", "guidance"}),
    ):
        score = PUBLISHED.score(await play(question, expert_turns(question)), question.truth)
        assert set(score.paid) == paid
        assert score.total == pytest.approx(sum(score.paid.values()))
        assert score.outcome == pytest.approx(4)


async def test_scoring_is_pure(sample):
    finished = await play(sample, expert_turns(sample))
    assert PUBLISHED.score(finished, sample.truth) == PUBLISHED.score(finished, sample.truth)


async def test_one_batch_scores_like_one_after_the_other(sample, sample_without_steps):
    episodes = [
        (await play(question, turns), question.truth)
        for question in (sample, sample_without_steps)
        for turns in ([LOOK, FRAME, miss()], expert_turns(question), [])
    ]
    alone = [build_rubric(RewardSettings(), WordEncoder()).score(*episode) for episode in episodes]
    assert build_rubric(RewardSettings(), WordEncoder()).score_many(episodes) == alone


def test_two_terms_of_one_name_would_hide_each_other():
    with pytest.raises(InvariantError, match="box_iou"):
        Rubric(
            (
                Term(BoxIoU(), 1.0, "hit"),
                Term(PointHit(), 1.0, "point"),
                Term(BoxIoU(threshold=None), 1.0, "IoU"),
            ),
            final,
        )


class LongestTurn:
    """Half of the reward for episodes of more than two turns."""

    name = "length"

    def __call__(self, transcript, truth):
        return 0.5 if len(transcript.model_turns) > 2 else None


async def test_factors_multiply_the_sum_and_what_is_paid_but_not_the_outcome(sample):
    halved = dataclasses.replace(PUBLISHED, factors=(Factor(LongestTurn(), "halves long ones"),))
    for turns, product in ((expert_turns(sample), 0.5), ([FRAME, miss()], 1.0)):
        played = await play(sample, turns)
        plain, found = PUBLISHED.score(played, sample.truth), halved.score(played, sample.truth)
        assert found.total == plain.total * product
        assert found.paid == {name: paid * product for name, paid in plain.paid.items()}
        assert found.outcome == plain.outcome
        assert found.factors == {"length": None if product == 1.0 else 0.5}
        assert halved.breakdown(played, found).total == found.total


def test_a_factor_of_a_terms_name_is_refused():
    with pytest.raises(InvariantError, match="length"):
        Rubric((Term(LongestTurn(), 1.0, ""),), final, (Factor(LongestTurn(), ""),))
