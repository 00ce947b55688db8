"""What is measured and judged in verl's trainer step besides the advantages: rollout against
trainer, and the guards. `training.patches` calls it.

Arrays: T response tokens.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import Any

import torch
import transfer_queue as tq

from seg_research.training.launch.config import plain
from seg_research.training.learner.guards import GuardSettings, StepGuards
from seg_research.training.run_contract import stop_run

_METRICS = "seg/logprob_gap"
_MAX_TURNS = 16
"""Later turns are counted in the mean and the largest gap, but not by themselves."""


def turn_gaps(
    trainer_T: torch.Tensor, rollout_T: torch.Tensor, mask_T: torch.Tensor
) -> list[torch.Tensor]:
    """Return, turn by turn, how far trainer and rollout are apart in the log-probability of each
    sampled token (mask 1).
    """
    gaps_T = (trainer_T - rollout_T).abs()
    turns: list[torch.Tensor] = []
    for sampled, piece in groupby(enumerate(mask_T.tolist()), key=lambda pair: pair[1]):
        if sampled:
            (first, _), *rest = piece
            turns.append(gaps_T[first : first + len(rest) + 1])
    return turns


def gap_metrics(rows: list[list[torch.Tensor]]) -> dict[str, float]:
    """Mean and largest gap of a token by number of the turn, and over all turns. What tools
    inserted is not compared.
    """
    by_turn: dict[int, list[torch.Tensor]] = defaultdict(list)
    for turns in rows:
        for number, gaps in enumerate(turns, 1):
            by_turn[number].append(gaps)
    if not by_turn:
        return {}
    joined = {number: torch.cat(gaps) for number, gaps in sorted(by_turn.items())}
    everything = torch.cat(list(joined.values()))
    shown = {number: gaps for number, gaps in joined.items() if number <= _MAX_TURNS}
    metrics = {f"{_METRICS}/turn_{number}": gaps.mean().item() for number, gaps in shown.items()}
    metrics |= {
        f"{_METRICS}/turn_{number}_max": gaps.max().item() for number, gaps in shown.items()
    }
    return {
        **metrics,
        f"{_METRICS}/mean": everything.mean().item(),
        f"{_METRICS}/max": everything.max().item(),
    }


def measure_gap(trainer: Any, batch: Any, metrics: dict[str, Any]) -> None:
    """Log the gaps of a step, where there are two kinds of log-probabilities to compare."""
    correction = trainer.config.algorithm.get("rollout_correction", None)
    if not trainer.config.actor_rollout_ref.rollout.calculate_log_probs or (
        correction and correction.get("bypass_mode", False)
    ):
        return  # the rollout's log-probabilities are the only ones
    names = ["old_log_probs", "rollout_log_probs", "response_mask"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
    columns: list[Any] = [data[name] for name in names]
    metrics.update(
        gap_metrics(
            [turn_gaps(*row) for row in zip(*(column.unbind() for column in columns), strict=True)]
        )
    )


def judge_step(trainer: Any, metrics: dict[str, Any]) -> None:
    """Stop the run if a guard says so: before the step's checkpoint is written, so that the last
    one is of a sound policy.
    """
    if not hasattr(trainer, "_seg_guards"):
        trainer._seg_guards = StepGuards(GuardSettings(**plain(trainer.config.seg.guards)))
    reason = trainer._seg_guards.judge(metrics)
    if reason:
        raise stop_run(trainer.config, f"step {trainer.global_steps}: {reason}")
