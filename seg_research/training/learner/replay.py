"""The groups of a training step: verl's replay buffer, polled often enough for short steps, with
dynamic sampling that comes to an end.

verl 0.9.1 has dynamic sampling (DAPO, arXiv:2503.14476, §3.2) that compares sums of rewards and
refills for ever where none differ: `algorithm.filter_groups.max_num_gen_batches` is ignored by its
trainer, and a sampler of one's own is not given the filter's settings. Here groups are kept for a
spread in their *outcome* (a process term differs almost always), and a step generates a limited
number of prompts.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from seg_common.errors import InfraError
from seg_research.rewards.grouping import outcome_spread
from seg_research.rewards.rubric import RewardBreakdown
from seg_research.training.learner.worker_health import WorkerHealth
from seg_research.training.trajectory import fetch_trajectories

_TRAIN = "train"
_METRICS = "seg/dapo"


@dataclass(slots=True)
class _Round:
    """Counts of one training step, in prompts."""

    submitted: int
    flat: int = 0


class PromptReplayBuffer(ReplayBuffer):
    """Reads of `trainer.v1.sampler.sampler_kwargs`: poll_interval in seconds, filter_groups,
    max_gen_rounds, min_outcome_spread.

    A generation round is as many prompts as one step trains on. After `max_gen_rounds` of them the
    step is trained with the groups that have a spread, however few; verl pads what is missing with
    rows that weigh nothing. Where there is none, one group without a spread takes their place: the
    step then teaches (next to) nothing, and `seg.guards` end a run with too many of them.
    """

    def __init__(self, **options: Any) -> None:
        kwargs = dict(options.get("sampler_kwargs") or {})
        super().__init__(
            **options,
            **({"poll_interval": kwargs["poll_interval"]} if "poll_interval" in kwargs else {}),
        )
        self._filters: bool = kwargs.get("filter_groups", False)
        self._max_rounds: int = kwargs.get("max_gen_rounds", 1)
        self._min_spread: float = kwargs.get("min_outcome_spread", 0.0)
        self._spreads: dict[str, float] = {}
        self._watch = WorkerHealth()

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        """Wait for the groups of a step; return them with metrics.

        Raises:
            InfraError: not one rollout of the step came to its end.
        """
        if not self._filters or partition_id != _TRAIN:
            return super().sample(global_steps, partition_id, batch_size)
        counts = _Round(submitted=batch_size)
        spare: str | None = None
        waited_since = time.time()
        while True:
            self._sync_metadata_from_transfer_queue()
            flat = self._flat_groups()
            good = (self.finished_keys[_TRAIN] | self.failure_keys[_TRAIN]) - flat
            counts.flat += len(flat - _one(spare))
            spare = None if good else spare or self._any_with_rollouts(flat)
            self._clear_groups(_TRAIN, flat - _one(spare))
            if self._refill(batch_size - len(good), batch_size, counts):
                continue
            # Prompts that run are waited for also where they are too many: they belong to this
            # version of the policy.
            if not self._num_running():
                break
            waited_since = self._wait_for_next_poll(_TRAIN, waited_since)
        return self._take(good, spare, batch_size, counts)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        """Wait, unless those that are waited for are dead."""
        # `refill_fn` is a method of the trainer, the only way from here to the workers.
        manager = getattr(getattr(self.refill_fn, "__self__", None), "agent_loop_manager", None)
        self._watch.check(getattr(manager, "agent_loop_workers", ()))
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def _num_running(self) -> int:
        return len(self.pending_keys[_TRAIN]) + len(self.running_keys[_TRAIN])

    def _refill(self, missing: int, batch_size: int, counts: _Round) -> bool:
        """Submit twice the prompts that will be missing even if all that run turn out well, as far
        as the rounds allow.
        """
        short = max(0, missing - self._num_running())
        num_prompts = min(2 * short, batch_size, self._max_rounds * batch_size - counts.submitted)
        if num_prompts <= 0:
            return False
        assert self.refill_fn is not None, "verl gives every sampler a refill_fn"
        self.refill_fn(num_prompts)
        counts.submitted += num_prompts
        return True

    def _take(
        self, good: set[str], spare: str | None, batch_size: int, counts: _Round
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        if not good and spare is None:
            raise InfraError(
                f"none of {counts.submitted} prompts had a rollout that came to its end; "
                "trainer.log tells why"
            )
        # In the queue's order, which is that of submission: what ends first is short, and a step
        # must not prefer it.
        chosen = [uid for uid in self.prompt_global_steps[_TRAIN] if uid in (good or _one(spare))][
            :batch_size
        ]
        self._clear_groups(_TRAIN, good - set(chosen))
        self._spreads.clear()
        numbers = {
            "rounds": counts.submitted / batch_size,
            "flat_groups": counts.flat,
            "trained_groups": min(len(good), batch_size),
            "surplus_groups": max(0, len(good) - batch_size),
            "cap_hit": float(len(good) < batch_size),
        }
        metrics = {f"{_METRICS}/{name}": float(number) for name, number in numbers.items()}
        return self._materialize_batch(_TRAIN, chosen, dict(self.partitions[_TRAIN])), metrics

    def _materialize_batch(
        self,
        partition_id: str,
        selected_prompt_uids: list[str],
        partition_snapshot: dict[str, dict],
    ) -> KVBatchMeta:
        """Order the rows by prompt and rollout, not by when they ended: sums over a batch must not
        depend on who was fastest.
        """
        batch = super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)
        order = {uid: place for place, uid in enumerate(self.prompt_global_steps[partition_id])}
        batch.reorder(
            sorted(range(len(batch.keys)), key=lambda row: _place(batch.keys[row], order))
        )
        return batch

    def _flat_groups(self) -> set[str]:
        """Return the groups at their end whose scored rollouts agree in outcome, or lie closer
        together than is asked for.
        """
        ended = self.finished_keys[_TRAIN] | self.failure_keys[_TRAIN]
        self._judge(ended - self._spreads.keys())
        return {
            uid for uid in ended if self._spreads[uid] == 0 or self._spreads[uid] < self._min_spread
        }

    def _judge(self, uids: set[str]) -> None:
        keys = [key for key in self.partitions[_TRAIN] if _group_of(key) in uids]
        groups: dict[str, list[RewardBreakdown]] = defaultdict(list)
        for key, trajectory in zip(keys, fetch_trajectories(keys, _TRAIN), strict=True):
            groups[_group_of(key)].append(trajectory.reward)
        self._spreads |= {uid: outcome_spread(groups[uid]) for uid in uids}

    def _any_with_rollouts(self, uids: set[str]) -> str | None:
        return next(
            (
                uid
                for uid in sorted(uids)
                if any(_group_of(key) == uid for key in self.partitions[_TRAIN])
            ),
            None,
        )


def _one(uid: str | None) -> set[str]:
    return set() if uid is None else {uid}


def _place(key: str, order: dict[str, int]) -> tuple[int, int, int]:
    uid, rollout, output = key.split("_")
    return order[uid], int(rollout), int(output)


def _group_of(key: str) -> str:
    """Return the group of a trajectory's key, `<group>_<rollout>_<output>`."""
    return key.split("_")[0]
