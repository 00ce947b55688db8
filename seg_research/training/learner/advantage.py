"""Advantages from what each rollout earned by term, as `rewards.groups` makes them, inside verl's
own trainer step.

verl 0.9.1 hands an estimator the sum of the rewards only; outcome, terms and searches stay behind
in the rollouts' `extra_fields`. So the trainer's step is wrapped: the wrapper fetches them for our
estimator, and logs them whatever the estimator.

Arrays: B rollouts of a step, T response tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from seg_common.errors import InvariantError
from seg_research.rewards.grouping import (
    PUBLISHED,
    Earned,
    GroupSettings,
    group_advantages,
    outcome_spread,
)
from seg_research.training.launch.config import GROUP_ESTIMATOR, group_settings
from seg_research.training.rollout.context import EARNED_KEY, TRUNCATED_KEY

_METRICS = "seg"
_NO_ADVANTAGE = 1e-6
"""What rounding leaves of the advantage of equal rewards is smaller."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the estimator needs of a training step and verl does not hand it.

    Attributes:
        earned: (B,), None for verl's padding.
        masked: rows that teach nothing, though what they earned counts in the baseline.
    """

    settings: GroupSettings
    earned: tuple[Earned | None, ...]
    masked: frozenset[int] = frozenset()


_step: ContextVar[Step] = ContextVar("step")


def seg_grpo(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: Any = None,
    **unused: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spread each rollout's group advantage over its own tokens; returns (advantages, returns),
    both (B, T).

    Args:
        token_level_rewards: (B, T); the sum of a row is the reward that `Earned` splits up.
        response_mask: (B, T), 1 on sampled tokens.
        index: (B,), equal within a group.
        config: verl's `algorithm`; ours are in the step.
        unused: what verl passes to other estimators.
    """
    step = _step.get(None)
    if step is None or len(step.earned) != len(index):
        raise InvariantError(
            f"{GROUP_ESTIMATOR}: {len(index)} rows, but the trainer's step was not prepared for them"
        )
    advantages_B = np.zeros(len(index))
    for rows in rows_by_group(index).values():
        advantages_B[rows] = group_advantages([step.earned[row] for row in rows], step.settings)
    advantages_B[list(step.masked)] = 0
    spread_BT = (
        torch.as_tensor(advantages_B, dtype=token_level_rewards.dtype)[:, None] * response_mask
    )
    return spread_BT, spread_BT


def rows_by_group(index: Sequence[Any] | np.ndarray) -> dict[Any, list[int]]:
    """List the rows of each group, in order."""
    rows: dict[Any, list[int]] = defaultdict(list)
    for row, group in enumerate(index):
        rows[group].append(row)
    return rows


def step_metrics(
    earned: Sequence[Earned | None],
    index: Sequence[Any],
    infos: Sequence[Mapping[str, float | None]],
    num_rollouts: int,
    settings: GroupSettings,
) -> dict[str, float]:
    """Describe a step: means over its rollouts, and the shares of groups that agree in outcome,
    teach nothing or lost a rollout.

    Args:
        earned: (B,), None for verl's padding.
        index: (B,), equal within a group.
        infos: (B,), named values of each rollout; None or absent where a term did not run.
        num_rollouts: rollouts that a group should have.
        settings: say which groups have no advantage at all.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for one, info in zip(earned, infos, strict=True):
        for name, value in info.items():
            if one is not None and value is not None:
                values[name].append(value)
    groups = [
        [earned[row] for row in rows if earned[row] is not None]
        for rows in rows_by_group(index).values()
    ]
    groups = [group for group in groups if group]
    metrics = {f"{_METRICS}/mean/{name}": float(np.mean(column)) for name, column in values.items()}
    if groups:
        metrics[f"{_METRICS}/groups/equal_outcome"] = float(
            np.mean([outcome_spread(group) == 0 for group in groups])
        )
        silent = [
            np.abs(group_advantages(group, settings)).max() < _NO_ADVANTAGE for group in groups
        ]
        metrics[f"{_METRICS}/groups/no_signal"] = float(np.mean(silent))
        metrics[f"{_METRICS}/groups/incomplete"] = float(
            np.mean([len(group) < num_rollouts for group in groups])
        )
    return metrics


def install() -> None:
    """Register the estimator and wrap the trainer's step (log of patches: verl/UPGRADING.md)."""
    register_adv_est(GROUP_ESTIMATOR)(seg_grpo)
    original: Callable[..., Any] = PPOTrainer._compute_advantage
    if getattr(original, "_seg_research", False):
        return

    def compute(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        fields = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "extra_fields"]
        )
        uids: list[Any] = list(fields["uid"])
        extras: list[Any] = list(fields["extra_fields"])
        # verl's padding repeats the extra fields of a real rollout.
        padding = [bool(tag.get("is_padding")) for tag in batch.tags]
        earned = tuple(
            None if padded else Earned(**extra[EARNED_KEY])
            for extra, padded in zip(extras, padding, strict=True)
        )
        infos = [extra["reward_extra_info"] for extra in extras]
        settings = (
            group_settings(self.config)
            if self.config.algorithm.adv_estimator == GROUP_ESTIMATOR
            else PUBLISHED
        )
        metrics.update(
            step_metrics(earned, uids, infos, self.config.actor_rollout_ref.rollout.n, settings)
        )
        cut = [
            row
            for row, info in enumerate(infos)
            if self.config.seg.overlong.mask_truncated and info[TRUNCATED_KEY]
        ]
        token = _step.set(Step(settings, earned, frozenset(cut)))
        try:
            return original(self, batch, metrics)
        finally:
            _step.reset(token)

    compute._seg_research = True  # type: ignore[attr-defined]
    PPOTrainer._compute_advantage = compute
