"""Advantages of a group: what published GRPO does with it (findings B5b), and ours does not."""

import dataclasses
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.core.prediction import Prediction
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.rewards.grouping import (
    PUBLISHED,
    GroupSettings,
    Scale,
    group_advantages,
    outcome_spread,
)
from seg_research.rewards.rubric import RewardBreakdown, Rubric, Score, Term

ROBUST = GroupSettings()


class Silence:
    """A term."""

    name = "silence"

    def __call__(self, transcript, truth):
        return float(not transcript.turns)


SAFE = [
    GroupSettings(scale, per_term=per_term) for scale, per_term in product(Scale, (False, True))
]
"""Every way to scale, with both orders kept."""


def name_of(settings: GroupSettings) -> str:
    per_term = ", term by term" if settings.per_term else ""
    published = "" if settings.level_per_step else ", as published"
    return f"{settings.scale}{per_term}{published}"


def breakdown(
    paid: dict[str, float], outcome: float, searches: int, answered: bool
) -> RewardBreakdown:
    return RewardBreakdown(
        sum(paid.values()), paid, outcome, answered, counts={"tapering": searches}
    )


def tapering(searches: int, well_formed: int) -> float:
    return 1 - 0.3 ** (min(searches, 10) + well_formed)


def published_terms(outcome: float, searches: int, *, answered: bool = True) -> RewardBreakdown:
    """What the original pays a rollout whose first query was right: half a point of guidance, up to
    half a point of tapering.
    """
    paid = {
        "outcome": outcome,
        "guidance": 0.5,
        "tapering": 0.5 * tapering(searches, int(answered)),
    }
    return breakdown(paid, outcome, searches, answered)


def robust_terms(outcome: float, searches: int, *, answered: bool = True) -> RewardBreakdown:
    """The same rollout under our terms: nothing of the process is paid without an answer."""
    return (
        published_terms(outcome, searches)
        if answered
        else breakdown({"outcome": 0.0}, 0.0, searches, answered)
    )


def all_wrong(searches: list[int], terms) -> list[RewardBreakdown]:
    """A group of findings B5b: rollouts of five searches answered, wrongly; the others went on
    searching and never answered.
    """
    return [terms(0.0, n, answered=n == 5) for n in searches]


ALL_WRONG = [[7, 7, 7, 7, 5, 5, 7, 5], [7, 7, 6, 7, 7, 7, 5, 5]]
ALL_CORRECT = [3, 1, 2, 2, 3, 4, 2, 4]


@pytest.mark.parametrize("searches", ALL_WRONG)
def test_published_normalisation_pays_for_never_answering(searches):
    found = group_advantages(all_wrong(searches, published_terms), PUBLISHED)
    assert found[np.array(searches) == 7] == pytest.approx(0.72, abs=0.005)
    # Six searches without an answer are worth as much as five with one: both make six units of the
    # tapering term.
    assert found[np.array(searches) < 7] == pytest.approx(-1.2, abs=0.005)


@pytest.mark.parametrize("searches", ALL_WRONG)
def test_ours_pays_for_answering(searches):
    found = group_advantages(all_wrong(searches, robust_terms), ROBUST)
    answered = np.array(searches) == 5
    assert found[answered].min() > 0.5
    assert found[~answered].max() < -0.5


@pytest.mark.parametrize("searches", ALL_WRONG)
def test_ours_does_not_pay_for_never_answering_even_with_the_published_terms(searches):
    found = group_advantages(all_wrong(searches, published_terms), ROBUST)
    answered = np.array(searches) == 5
    assert found[~answered].max() <= found[answered].min()
    assert np.abs(found).max() < 0.002


def test_published_normalisation_punishes_the_efficient_solution():
    found = group_advantages([published_terms(4.0, n) for n in ALL_CORRECT], PUBLISHED)
    assert found[ALL_CORRECT.index(1)] == pytest.approx(-2.29, abs=0.005)
    assert found[ALL_CORRECT.index(4)] == pytest.approx(0.75, abs=0.005)


def test_ours_leaves_equally_good_solutions_alone():
    assert group_advantages(
        [published_terms(4.0, n) for n in ALL_CORRECT], ROBUST
    ) == pytest.approx(0, abs=1e-12)


def test_each_of_our_measures_helps_by_itself():
    group = [published_terms(4.0, n) for n in ALL_CORRECT]
    efficient = ALL_CORRECT.index(1)
    floor_alone = group_advantages(group, dataclasses.replace(ROBUST, level_per_step=False))
    no_scale = group_advantages(group, GroupSettings(Scale.NONE, level_per_step=False))
    assert -0.2 < floor_alone[efficient] < 0
    assert -0.04 < no_scale[efficient] < 0
    assert group_advantages(group, GroupSettings(Scale.PUBLISHED))[efficient] == pytest.approx(0)


def earned(
    outcome: float, guidance: float, share: float, form: float, searches: int, answered: bool
) -> RewardBreakdown:
    outcome *= answered
    return breakdown(
        {"box_iou": outcome, "guidance": guidance, "tapering": share, "format": form},
        outcome,
        searches,
        answered,
    )


rollouts = st.builds(
    earned,
    outcome=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    guidance=st.sampled_from([0.0, 0.5]),
    share=st.floats(0, 0.5),
    form=st.sampled_from([0.0, 0.5]),
    searches=st.integers(0, 7),
    answered=st.booleans(),
)
groups = st.lists(rollouts, min_size=1, max_size=8)


def others(one: RewardBreakdown) -> dict[str, float]:
    return {name: value for name, value in one.paid.items() if name != "tapering"}


@pytest.mark.parametrize("settings", SAFE, ids=name_of)
@given(group=groups)
def test_whoever_answers_never_loses_to_whoever_does_not_at_equal_outcome(settings, group):
    found = group_advantages(group, settings)
    for (a, mine), (b, theirs) in permutations(zip(group, found, strict=True), 2):
        if a.answered and not b.answered and a.outcome >= b.outcome:
            assert mine >= theirs


@pytest.mark.parametrize("settings", SAFE, ids=name_of)
@given(group=groups)
def test_fewer_searches_never_lose_at_equal_outcome(settings, group):
    found = group_advantages(group, settings)
    for (a, mine), (b, theirs) in permutations(zip(group, found, strict=True), 2):
        alike = a.answered == b.answered and others(a) == others(b)
        if a.outcome == b.outcome and alike and a.counts["tapering"] <= b.counts["tapering"]:
            assert mine >= theirs


@pytest.mark.parametrize("settings", [*SAFE, PUBLISHED], ids=name_of)
@given(group=groups, lost=st.sets(st.integers(0, 10)))
def test_a_failed_service_gets_nothing_and_moves_no_baseline(settings, group, lost):
    places = [
        None if index in lost else group.pop(0)
        for index in range(len(group) + len(lost))
        if index in lost or group
    ]
    found = group_advantages(places, settings)
    alive = [one for one in places if one is not None]
    assert [float(a) for a, one in zip(found, places, strict=True) if one is None] == [0.0] * (
        len(places) - len(alive)
    )
    np.testing.assert_array_equal(
        [a for a, one in zip(found, places, strict=True) if one is not None],
        group_advantages(alive, settings),
    )


@pytest.mark.parametrize("settings", [*SAFE, PUBLISHED], ids=name_of)
@given(group=groups, seed=st.integers(0, 99))
def test_the_order_of_rollouts_means_nothing(settings, group, seed):
    order = np.random.default_rng(seed).permutation(len(group))
    shuffled = group_advantages([group[i] for i in order], settings)
    np.testing.assert_allclose(
        shuffled, group_advantages(group, settings)[order], rtol=1e-6, atol=1e-9
    )


@given(group=groups, floor=st.floats(0.05, 1))
def test_a_small_difference_stays_small(group, floor):
    totals = [sum(one.paid.values()) for one in group]
    found = group_advantages(
        group, GroupSettings(std_floor=floor, level_per_step=False, answers_first=False)
    )
    assert np.ptp(found) <= np.ptp(totals) / floor + 1e-9


@given(group=groups)
def test_rewards_that_agree_teach_nothing(group):
    same = [group[0]] * 8
    for settings in (*SAFE, PUBLISHED):
        assert group_advantages(same, settings) == pytest.approx(0, abs=1e-6)


@given(group=groups, spread=st.floats(0.01, 5))
def test_groups_that_agree_in_outcome_can_be_left_out(group, spread):
    found = group_advantages(group, GroupSettings(min_outcome_spread=spread))
    outcomes = [one.outcome for one in group]
    assert outcome_spread(group) == pytest.approx(max(outcomes) - min(outcomes))
    if max(outcomes) - min(outcomes) < spread - 1e-6:
        assert not found.any()
    else:
        np.testing.assert_array_equal(found, group_advantages(group, ROBUST))


def test_a_term_of_its_own_scale_is_heard_beside_a_louder_one():
    group = [
        earned(outcome, guidance, 0, 0, 1, True)
        for outcome, guidance in product((0.0, 4.0), (0.0, 0.5))
    ]
    joint, apart = (
        group_advantages(group, GroupSettings(per_term=per_term)) for per_term in (False, True)
    )
    assert apart[1] - apart[0] == pytest.approx(apart[2] - apart[0])
    assert joint[1] - joint[0] < (joint[2] - joint[0]) / 7


def test_a_rollout_that_survives_alone_has_nobody_to_be_compared_with():
    assert group_advantages([published_terms(4.0, 1), None, None], ROBUST).tolist() == [0, 0, 0]
    assert group_advantages([published_terms(4.0, 1)], PUBLISHED) > 4  # what verl does


def test_a_group_that_was_lost_whole_or_is_empty_is_no_error():
    assert group_advantages([None, None], ROBUST).tolist() == [0, 0]
    assert group_advantages([], ROBUST).tolist() == []
    assert outcome_spread([None]) == 0


def test_an_episode_without_a_score_earned_nothing_that_could_be_compared():
    transcript = Transcript("s", (), (), StopReason.INFRA)
    rubric = Rubric(
        (Term(Silence(), 0.5, "", count=lambda transcript: len(transcript.turns)),),
        lambda transcript: Prediction(),
    )
    assert rubric.breakdown(transcript, Score(None, {"silence": None})) is None
    scored = Score(0.5, {"silence": 1.0}, {"silence": 0.5}, 0.0)
    assert rubric.breakdown(transcript, scored) == RewardBreakdown(
        0.5, {"silence": 0.5}, 0.0, answered=False, counts={"silence": 0}
    )


def test_every_term_paid_per_step_is_levelled_whatever_its_name():
    def rollout(steps: int) -> RewardBreakdown:
        return RewardBreakdown(
            0.1 * steps, {"looks": 0.1 * steps}, 0.0, answered=True, counts={"looks": steps}
        )

    group = [rollout(steps) for steps in (1, 2, 3)]
    assert group_advantages(group, ROBUST) == pytest.approx(0, abs=1e-12)
    unlevelled = group_advantages(group, dataclasses.replace(ROBUST, level_per_step=False))
    assert unlevelled[2] > 0.4


@pytest.mark.parametrize(
    "wrong", [{"std_floor": 0.0}, {"std_floor": float("nan")}, {"min_outcome_spread": -1.0}]
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        GroupSettings(**wrong)
