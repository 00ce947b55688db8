"""Length shaping: the curve of the DAPO paper, and what it does to a score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.core.prediction import Prediction
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.rewards.rubric import RewardBreakdown, Rubric, Score
from seg_research.rewards.shaping import OverlongSettings, overlong, shaped, was_cut

SCORE = Score(1.5, {"box_iou": 1.0, "format": 0.5}, {"box_iou": 1.0, "format": 0.5}, 1.0)


def ended(stop: StopReason) -> Transcript:
    return Transcript("s", (), (), stop)


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        (0, 0),
        (16384, 0),
        (16385, -1 / 4096),
        (18432, -0.5),
        (20479, -4095 / 4096),
        (20480, -1),
        (99999, -1),
    ],
)
def test_the_curve_is_that_of_equation_13(tokens, value):
    assert overlong(tokens, max_tokens=20480, buffer_tokens=4096) == pytest.approx(value)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 1000))
def test_longer_is_never_better(one, other, buffer):
    values = [overlong(tokens, 1000, buffer) for tokens in sorted((one, other))]
    assert -1 <= values[1] <= values[0] <= 0


def test_the_shaping_is_a_term_of_its_own_and_leaves_the_outcome_alone():
    found = shaped(SCORE, ended(StopReason.ANSWERED), 900, 1000, OverlongSettings(0.2, penalty=2.0))
    assert found == Score(
        0.5, {**SCORE.terms, "overlong": -0.5}, {**SCORE.paid, "overlong": -1.0}, 1.0
    )
    rubric = Rubric((), lambda transcript: Prediction(answered=True))
    earned = rubric.breakdown(ended(StopReason.ANSWERED), found)
    assert earned == RewardBreakdown(0.5, found.paid, 1.0, answered=True)
    assert sum(found.paid.values()) == 0.5


def test_an_episode_whose_next_observation_did_not_fit_counts_as_full():
    assert (
        shaped(SCORE, ended(StopReason.TOO_LONG), 100, 1000, OverlongSettings(penalty=1.0)).total
        == 0.5
    )


def test_without_a_penalty_or_without_a_score_nothing_changes():
    assert shaped(SCORE, ended(StopReason.ANSWERED), 1000, 1000, OverlongSettings()) is SCORE
    failed = Score(None, {"box_iou": None})
    assert (
        shaped(failed, ended(StopReason.INFRA), 1000, 1000, OverlongSettings(penalty=1.0)) is failed
    )


def test_cut_episodes_are_those_that_a_budget_ended():
    assert {stop for stop in StopReason if was_cut(ended(stop))} == {
        StopReason.TURN_TRUNCATED,
        StopReason.TOO_LONG,
    }


@pytest.mark.parametrize(
    "wrong",
    [{"buffer_share": 0}, {"buffer_share": 1.1}, {"penalty": -1}, {"penalty": float("nan")}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=r"seg\.overlong"):
        OverlongSettings(**wrong)
