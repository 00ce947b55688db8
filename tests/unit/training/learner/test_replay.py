"""Dynamic sampling against a queue in memory: which groups a step is trained on, what is generated
for it, and when that ends.
"""

from collections import deque

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import transfer_queue as tq
from hypothesis import given
from hypothesis import strategies as st
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from seg_common.errors import InfraError
from seg_research.rewards.rubric import RewardBreakdown
from seg_research.training.learner.replay import PromptReplayBuffer
from seg_research.training.trajectory import FinishedTrajectory

BATCH = 4


class Queue:
    """Prompts that end one a poll; each brings the outcomes of its rollouts, a shorter list where
    rollouts failed.
    """

    def __init__(self, groups):
        self.waiting, self.items, self.extras = deque(groups), {}, {}
        self.running, self.cleared, self.refills, self.num = deque(), set(), [], 0

    def submit(self, num_prompts):
        for _ in range(num_prompts):
            uid = f"g{self.num}"
            self.num += 1
            self.items[uid] = {"is_prompt": True, "status": "running", "global_steps": 1}
            self.running.append((uid, self.waiting.popleft()))

    def refill(self, num_prompts):
        self.refills.append(num_prompts)
        self.submit(num_prompts)

    def kv_list(self):
        if self.running:
            uid, outcomes = self.running.pop()  # the last submitted ends first
            self.items[uid]["status"] = "failure" if len(outcomes) < 2 else "finished"
            for rollout, outcome in reversed(list(enumerate(outcomes))):
                self.items[f"{uid}_{rollout}_0"] = {"status": "success"}
                paid = {"box_iou": outcome, "format": 0.1 * rollout}
                earned = RewardBreakdown(sum(paid.values()), paid, outcome, True)
                self.extras[f"{uid}_{rollout}_0"] = FinishedTrajectory(earned).to_extra_fields()
        return {"train": {key: dict(tag) for key, tag in self.items.items()}}

    def kv_batch_get(self, keys, partition_id, select_fields):
        assert (partition_id, select_fields) == ("train", ["extra_fields"])
        return list_of_dict_to_tensordict([{"extra_fields": self.extras[key]} for key in keys])

    def kv_clear(self, partition_id, keys):
        for key in keys:
            del self.items[key]
        self.cleared |= set(keys)


GOOD, FLAT, LOST = [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], []


def sample(monkeypatch, groups, *, rounds=3, min_spread=0.0, filters=True):
    """Run one step; return the groups it is trained on, its metrics and the queue."""
    queue = Queue(groups)
    for name in ("kv_list", "kv_batch_get", "kv_clear"):
        monkeypatch.setattr(tq, name, getattr(queue, name))
    kwargs = {
        "poll_interval": 0,
        "filter_groups": filters,
        "max_gen_rounds": rounds,
        "min_outcome_spread": min_spread,
    }
    buffer = PromptReplayBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs=kwargs,
        refill_fn=queue.refill,
    )
    queue.submit(BATCH)
    batch, metrics = buffer.sample(1, "train", BATCH)
    assert batch.keys == sorted(
        batch.keys, key=lambda key: [int(part.strip("g")) for part in key.split("_")]
    ), "in the order of submission"
    return (
        {key.split("_")[0] for key in batch.keys},
        {name.removeprefix("seg/dapo/"): v for name, v in metrics.items()},
        queue,
    )


def test_groups_that_all_differ_are_trained_on_as_they_come(monkeypatch):
    trained, metrics, queue = sample(monkeypatch, [GOOD] * BATCH)
    assert trained == {"g0", "g1", "g2", "g3"}
    assert queue.refills == []
    assert metrics == {
        "rounds": 1,
        "flat_groups": 0,
        "trained_groups": BATCH,
        "surplus_groups": 0,
        "cap_hit": 0,
    }


def test_a_flat_group_is_replaced_though_its_rewards_differ(monkeypatch):
    trained, metrics, queue = sample(monkeypatch, [GOOD, FLAT, GOOD, GOOD, GOOD, GOOD])
    assert queue.refills == [2]
    assert trained == {"g0", "g2", "g3", "g4"}
    assert metrics == {
        "rounds": 1.5,
        "flat_groups": 1,
        "trained_groups": BATCH,
        "surplus_groups": 1,
        "cap_hit": 0,
    }
    assert not [key for key, tag in queue.items.items() if tag.get("is_prompt")]
    assert {key.split("_")[0] for key in queue.items} == trained


def test_at_the_cap_a_step_is_trained_with_what_there_is(monkeypatch):
    trained, metrics, queue = sample(monkeypatch, [GOOD, FLAT, FLAT, FLAT] + [FLAT] * 20, rounds=3)
    assert trained == {"g0"}
    assert sum(queue.refills) == 2 * BATCH
    assert metrics == {
        "rounds": 3,
        "flat_groups": 3 * BATCH - 1,
        "trained_groups": 1,
        "surplus_groups": 0,
        "cap_hit": 1,
    }


def test_where_no_group_differs_one_of_them_keeps_the_step_alive(monkeypatch):
    trained, metrics, queue = sample(monkeypatch, [FLAT] * 20, rounds=2)
    assert len(trained) == 1
    assert metrics == {
        "rounds": 2,
        "flat_groups": 2 * BATCH,
        "trained_groups": 0,
        "surplus_groups": 0,
        "cap_hit": 1,
    }
    assert {key.split("_")[0] for key in queue.items} == trained


def test_one_round_replaces_nothing(monkeypatch):
    trained, metrics, queue = sample(monkeypatch, [FLAT, GOOD, FLAT, FLAT], rounds=1)
    assert (trained, queue.refills, metrics["cap_hit"]) == ({"g1"}, [], 1)


def test_groups_that_lost_rollouts_to_a_service_are_judged_by_the_others(monkeypatch):
    trained, _, queue = sample(monkeypatch, [GOOD, [1.0], LOST, [0.0, 1.0], GOOD, GOOD, GOOD, GOOD])
    assert trained == {"g0", "g3", "g4", "g5"}
    assert queue.refills == [2]


def test_a_step_without_any_rollout_ends_the_run(monkeypatch):
    with pytest.raises(InfraError, match="none of 8 prompts"):
        sample(monkeypatch, [LOST] * 20, rounds=2)


def test_the_least_spread_may_be_asked_for(monkeypatch):
    near = [1.0, 0.95]
    assert sample(monkeypatch, [near] * 4)[1]["flat_groups"] == 0
    assert sample(monkeypatch, [near, GOOD, GOOD, GOOD, GOOD, GOOD], min_spread=0.1)[0] == {
        "g1",
        "g2",
        "g3",
        "g4",
    }


def test_without_the_filter_every_group_is_trained_on(monkeypatch):
    trained, metrics, queue = sample(monkeypatch, [FLAT] * BATCH, filters=False)
    assert (len(trained), metrics, queue.refills) == (BATCH, {}, [])


@given(
    st.lists(st.sampled_from([GOOD, FLAT, LOST, [0.5]]), min_size=40, max_size=40),
    st.integers(1, 6),
)
def test_a_step_never_generates_more_than_its_rounds_and_never_trains_on_a_flat_group_beside_others(
    groups, rounds
):
    with pytest.MonkeyPatch.context() as patch:
        try:
            trained, metrics, queue = sample(patch, groups, rounds=rounds)
        except InfraError:
            assert all(group == LOST for group in groups[: rounds * BATCH])
            return
    assert queue.num <= rounds * BATCH
    assert metrics["rounds"] == queue.num / BATCH
    differing = {f"g{i}" for i in range(queue.num) if groups[i] is GOOD}
    assert trained <= differing or (not differing and len(trained) == 1)
    assert len(trained) == min(BATCH, max(1, len(differing)))
    assert metrics["cap_hit"] == (len(differing) < BATCH)
    assert {key.split("_")[0] for key in queue.items} == trained
