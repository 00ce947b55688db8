"""Guards stop a run that trains on broken tools or without its services, and no other."""

import pytest

from seg_common.errors import UsageError
from seg_research.episode.action import Action
from seg_research.episode.transcript import (
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Transcript,
)
from seg_research.training.learner.guards import Guards, GuardSettings, StepGuards


def episode(
    *outcomes: Outcome,
    tool: str = "keyframe",
    stop: StopReason = StopReason.ANSWERED,
    error: str = "",
) -> Transcript:
    turns = []
    for number, outcome in enumerate(outcomes):
        turns += [
            ModelTurn("x", Action()),
            Observation(Message("user", ()), tool, outcome, f"reason {number}"),
        ]
    return Transcript("s", (), tuple(turns), stop, error=error)


def outage(error: str = "search server down") -> Transcript:
    return episode(stop=StopReason.INFRA, error=error)


def judge(guards: Guards, *transcripts: Transcript) -> list[str | None]:
    return [guards.count(t) for t in transcripts]


def test_a_tool_that_always_fails_stops_the_run_as_soon_as_enough_calls_were_made():
    guards = Guards(GuardSettings(min_calls=8))
    verdicts = judge(guards, *[episode(Outcome.REJECTED)] * 8)
    assert verdicts[:7] == [None] * 7
    assert (
        verdicts[7]
        == "tool keyframe worked in 0 of 8 calls (limit 10%); the last refusal: reason 0"
    )


def test_many_calls_of_one_episode_count_each():
    assert Guards(GuardSettings(min_calls=5)).count(episode(*[Outcome.REJECTED] * 5)) is not None


@pytest.mark.parametrize(("num_worked", "stops"), [(0, True), (1, True), (2, False), (10, False)])
def test_the_limit_is_a_share_of_the_calls(num_worked, stops):
    guards = Guards(GuardSettings(min_tool_success=0.1, min_calls=20))
    outcomes = [Outcome.OK] * num_worked + [Outcome.REJECTED] * (20 - num_worked)
    assert (guards.count(episode(*outcomes)) is not None) is stops


def test_a_tool_that_finds_nothing_works():
    assert Guards(GuardSettings(min_calls=4)).count(episode(*[Outcome.EMPTY] * 50)) is None


def test_malformed_turns_are_no_calls():
    assert Guards(GuardSettings(min_calls=4)).count(episode(*[Outcome.FAULT] * 50)) is None


def test_one_broken_tool_does_not_hide_behind_a_working_one():
    guards = Guards(GuardSettings(min_calls=10))
    verdicts = judge(
        guards, *[episode(Outcome.OK, tool="text_search")] * 100, *[episode(Outcome.REJECTED)] * 10
    )
    assert verdicts[-2] is None
    assert verdicts[-1].startswith("tool keyframe worked in 0 of 10 calls")


def test_too_few_calls_mean_nothing():
    assert (
        judge(Guards(GuardSettings(min_calls=64)), *[episode(Outcome.REJECTED)] * 63) == [None] * 63
    )


def test_an_outage_stops_the_run_though_it_has_just_begun():
    verdicts = judge(Guards(GuardSettings(max_infra_share=0.05, min_calls=64)), *[outage()] * 4)
    assert verdicts[:3] == [None] * 3
    assert (
        verdicts[3]
        == "4 of the last 4 episodes were ended by a failing service (limit 5%); the last one:"
        " search server down"
    )


def test_an_outage_after_thousands_of_good_episodes_stops_the_run_as_soon():
    guards = Guards(GuardSettings(max_infra_share=0.05, min_calls=64))
    assert set(judge(guards, *[episode(Outcome.OK)] * 5000)) == {None}
    verdicts = judge(guards, *[outage(f"down {i}") for i in range(4)])
    assert verdicts[:3] == [None] * 3
    assert "4 of the last 64" in verdicts[3]
    assert verdicts[3].endswith("down 3")


def test_rare_failures_do_not_add_up():
    guards = Guards(GuardSettings(max_infra_share=0.05, min_calls=64))
    for _ in range(50):
        assert set(judge(guards, outage(), *[episode(Outcome.OK)] * 30)) == {None}


def test_no_failure_at_all_may_be_asked_for():
    assert Guards(GuardSettings(max_infra_share=0.0)).count(outage()) is not None


def test_a_failure_without_a_message_is_one_too():
    assert judge(Guards(GuardSettings(max_infra_share=0.0)), outage("")) != [None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_tool_success": 1.5},
        {"min_tool_success": -0.1},
        {"max_infra_share": 2},
        {"min_calls": 0},
        {"min_entropy": -1},
        {"max_truncated": 2},
        {"max_turn_growth": 1},
        {"max_logprob_gap": 0},
        {"patience": 0},
    ],
)
def test_impossible_limits_are_refused(wrong):
    with pytest.raises(UsageError, match=r"seg\.guards"):
        GuardSettings(**wrong)


SOUND = {
    "actor/entropy": 1.0,
    "actor/grad_norm": 0.1,
    "seg/mean/truncated": 0.1,
    "seg/groups/no_signal": 0.5,
    "seg/mean/tokens_per_turn": 30.0,
    "seg/logprob_gap/mean": 0.01,
}


def judged(*steps: dict[str, float], **limits: float) -> list[str | None]:
    guards = StepGuards(GuardSettings(**{"patience": 3, **limits}))
    return [guards.judge({**SOUND, **step}) for step in steps]


def test_sound_steps_go_on():
    assert judged(*[{}] * 50) == [None] * 50


@pytest.mark.parametrize(
    "name", ["actor/pg_loss", "actor/grad_norm", "actor/entropy", "seg/logprob_gap/max"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stops_the_run_at_once(name, value):
    (reason,) = judged({name: value})
    assert reason.startswith(f"{name} is {value}")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"actor/entropy": 1e-5}, "the policy's entropy is 1e-05 (limit 0.001)"),
        ({"seg/mean/truncated": 0.95}, "95% of the episodes were cut by a budget (limit 90%)"),
        ({"seg/groups/no_signal": 1.0}, "in no group any rollout earned more than another"),
        (
            {"seg/logprob_gap/mean": 0.6},
            "rollout and trainer are 0.6 nats a token apart (limit 0.5)",
        ),
    ],
)
def test_what_lasts_stops_the_run_and_what_passes_does_not(step, told):
    assert judged(step, step, {}, step, step, {}) == [None] * 6
    *before, last = judged({}, step, step, step)
    assert before == [None] * 3
    assert told in last
    assert last.endswith("for 3 steps on end")


def test_two_troubles_in_turn_are_none_that_lasts():
    assert judged(*[{"actor/entropy": 0.0}, {"seg/groups/no_signal": 1.0}] * 5) == [None] * 10


def test_turns_that_grow_out_of_all_proportion_stop_the_run():
    longer = {"seg/mean/tokens_per_turn": 130.0}
    assert judged({}, {}, {}, longer, longer, {}, longer) == [None] * 7
    assert (
        "turns of 130 tokens, at first 30 (limit: 4 times)"
        in judged({}, {}, {}, longer, longer, longer)[-1]
    )
    assert judged(*[longer] * 20) == [None] * 20


def test_what_a_step_does_not_measure_is_not_judged():
    guards = StepGuards(GuardSettings(patience=1))
    assert [guards.judge({}) for _ in range(10)] == [None] * 10
