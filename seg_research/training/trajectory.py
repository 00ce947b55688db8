"""What a finished trajectory takes along from the rollout to the learner: the one road by which a
reward reaches the advantage. verl keeps it with the trajectory's tokens, among its extra fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import transfer_queue as tq

from seg_research.rewards.rubric import RewardBreakdown

_FIELD = "seg_trajectory"


@dataclass(frozen=True, slots=True)
class FinishedTrajectory:
    """One trajectory, without its tokens.

    Attributes:
        reward: what it earned; verl's `reward_score` is its total.
        group: names the prompt; rollouts of one prompt are compared.
        truncated: a budget ended the episode.
        measures: named numbers for the log, None where a reward term did not run.
        tool_calls: number of calls by tool.
        evidence: what a recipe wants to know of it in its pass after the rollout
            (`TrainerHooks.after_rollout`); plain data.
    """

    reward: RewardBreakdown
    group: str = ""
    truncated: bool = False
    measures: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    tool_calls: Mapping[str, int] = field(default_factory=dict[str, int])
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_extra_fields(self) -> dict[str, Any]:
        """Return it as extra fields of verl's output, in plain data: the queue would turn
        dataclasses into dicts on the way.
        """
        return {_FIELD: dataclasses.asdict(self), "reward_extra_info": dict(self.measures)}


def from_extra_fields(extra: Mapping[str, Any]) -> FinishedTrajectory:
    """Read what `to_extra_fields` wrote."""
    fields = dict(extra[_FIELD])
    return FinishedTrajectory(**{**fields, "reward": RewardBreakdown(**fields["reward"])})


def fetch_extra_fields(keys: Sequence[str], partition_id: str) -> list[dict[str, Any]]:
    """Fetch the extra fields of trajectories from verl's queue, in the order of their keys."""
    if not keys:
        return []
    rows: Any = tq.kv_batch_get(
        keys=list(keys), partition_id=partition_id, select_fields=["extra_fields"]
    )
    # One row comes as tensordict's wrapper, several as what is in it.
    return [getattr(row, "data", row) for row in rows["extra_fields"]]


def fetch_trajectories(keys: Sequence[str], partition_id: str) -> list[FinishedTrajectory]:
    """Fetch trajectories from verl's queue, in the order of their keys."""
    return [from_extra_fields(extra) for extra in fetch_extra_fields(keys, partition_id)]
