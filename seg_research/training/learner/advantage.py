"""Advantages of a training step from what each rollout earned by term, as `rewards.grouping` makes
them, inside verl's own trainer step.

verl 0.9.1 hands an estimator the sum of the rewards only; what it was made of stays behind with the
trajectories. So the trainer's step is wrapped: the wrapper fetches them, gives the estimator of
this step to verl under the name `seg_grpo`, and logs them whatever the estimator.

Arrays: B rollouts of a step, T response tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo import core_algos

from seg_common.errors import InvariantError
from seg_research.rewards.grouping import (
    PUBLISHED,
    GroupSettings,
    group_advantages,
    outcome_spread,
)
from seg_research.rewards.rubric import RewardBreakdown
from seg_research.training.launch.config import GROUP_ESTIMATOR, group_settings
from seg_research.training.trajectory import FinishedTrajectory, fetch_trajectories

_METRICS = "seg"
_NO_ADVANTAGE = 1e-6
"""What rounding leaves of the advantage of equal rewards is smaller."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The rollouts of a training step.

    Attributes:
        trajectories: (B,), None for verl's padding.
        mask_truncated: rollouts that a budget cut teach nothing, though what they earned counts in
            the baseline.
    """

    trajectories: tuple[FinishedTrajectory | None, ...]
    settings: GroupSettings
    mask_truncated: bool = False

    def estimate(
        self,
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Sequence[Any] | np.ndarray,
        config: Any = None,
        **unused: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Spread each rollout's group advantage over its own tokens, as an estimator of verl.

        Args:
            token_level_rewards: (B, T); the sum of a row is the reward that is split up here.
            response_mask: (B, T), 1 on sampled tokens.
            index: (B,), equal within a group.
            config: verl's `algorithm`; ours are in the step.
            unused: what verl passes to other estimators.

        Returns:
            advantages and returns, both (B, T).
        """
        if len(self.trajectories) != len(index):
            raise InvariantError(
                f"{GROUP_ESTIMATOR}: {len(index)} rows, but {len(self.trajectories)} trajectories"
            )
        rewards = [one and one.reward for one in self.trajectories]
        advantages_B = np.zeros(len(index))
        for rows in rows_by_group(index).values():
            advantages_B[rows] = group_advantages([rewards[row] for row in rows], self.settings)
        if self.mask_truncated:
            advantages_B[[one is not None and one.truncated for one in self.trajectories]] = 0
        spread_BT = (
            torch.as_tensor(advantages_B, dtype=token_level_rewards.dtype)[:, None] * response_mask
        )
        return spread_BT, spread_BT


def fetch_step(config: DictConfig, batch: Any) -> TrainingStep:
    """Fetch the rollouts of a step, one of verl's batches of keys, from its queue."""
    fetched = fetch_trajectories(batch.keys, batch.partition_id)
    # verl's padding repeats the extra fields of a real rollout.
    trajectories = tuple(
        None if tag.get("is_padding") else one for one, tag in zip(fetched, batch.tags, strict=True)
    )
    ours = config.algorithm.adv_estimator == GROUP_ESTIMATOR
    return TrainingStep(
        trajectories,
        group_settings(config) if ours else PUBLISHED,
        config.seg.overlong.mask_truncated,
    )


def give_to_verl(step: TrainingStep) -> None:
    """Make this step's estimator the one that verl finds by name. Its registry refuses a second
    one, and an estimator is given nothing that would tell which step it is asked about.
    """
    core_algos.ADV_ESTIMATOR_REGISTRY[GROUP_ESTIMATOR] = step.estimate


def rows_by_group(index: Sequence[Any] | np.ndarray) -> dict[Any, list[int]]:
    """List the rows of each group, in order."""
    rows: dict[Any, list[int]] = defaultdict(list)
    for row, group in enumerate(index):
        rows[group].append(row)
    return rows


def step_metrics(step: TrainingStep, num_rollouts: int) -> dict[str, float]:
    """Describe a step: means over its rollouts, and the shares of groups that agree in outcome,
    teach nothing or lost a rollout.

    Args:
        step: padding is left out; a measure that is None or absent counts nowhere.
        num_rollouts: rollouts that a group should have.
    """
    trajectories = [one for one in step.trajectories if one is not None]
    values: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, list[RewardBreakdown]] = defaultdict(list)
    tools = sorted(set().union(*(one.tool_calls for one in trajectories)))
    for one in trajectories:
        groups[one.group].append(one.reward)
        for name, value in one.measures.items():
            if value is not None:
                values[name].append(value)
        for tool in tools:
            values[f"calls/{tool}"].append(one.tool_calls.get(tool, 0))
    metrics = {f"{_METRICS}/mean/{name}": float(np.mean(column)) for name, column in values.items()}
    if not groups:
        return metrics
    shares = {
        "equal_outcome": [outcome_spread(group) == 0 for group in groups.values()],
        "no_signal": [_is_silent(group, step.settings) for group in groups.values()],
        "incomplete": [len(group) < num_rollouts for group in groups.values()],
    }
    return metrics | {
        f"{_METRICS}/groups/{name}": float(np.mean(column)) for name, column in shares.items()
    }


def _is_silent(group: Sequence[RewardBreakdown], settings: GroupSettings) -> bool:
    return bool(np.abs(group_advantages(group, settings)).max() < _NO_ADVANTAGE)
