"""Patches of verl 0.9.1, each with the reason and what tells when it can go (log:
verl/UPGRADING.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import verl.utils.distributed as distributed


def accept_cpu_process_group() -> None:
    """Give the process group one backend for the CPU.

    verl asks for "cpu:gloo,{device}:{backend}", which on the CPU platform names the CPU twice;
    torch refuses that. Can go when the contract test `test_verl_still_names_the_cpu_twice` fails.
    Must run before the engine workers import the function.
    """
    original = distributed.initialize_global_process_group_ray
    if getattr(original, "_seg_research", False):
        return

    def initialize(
        timeout_second: float | timedelta | None = None, backend: str | None = None
    ) -> object:
        return original(timeout_second, backend or "cpu:gloo")

    initialize._seg_research = True  # type: ignore[attr-defined]
    distributed.initialize_global_process_group_ray = initialize


def number_prompts() -> None:
    """Name the prompts of a training step by their number, `<step>-<number>`, where verl draws a
    random name.

    The name decides what is sampled for a prompt (agent_loop.py), so that a resumed run goes on as
    the uninterrupted one would have. Can go when the contract test
    `test_verl_still_names_prompts_at_random` fails.
    """
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils import tensordict_utils

    original: Callable[..., Any] = PPOTrainer._next_train_batch
    if getattr(original, "_seg_research", False):
        return

    @functools.wraps(original)
    def fetch(self: Any, num_prompts: int | None = None) -> Any:
        batch = original(self, num_prompts)
        step, taken = getattr(self, "_seg_numbered", (None, 0))
        taken = taken if step == self.global_steps else 0
        tensordict_utils.assign_non_tensor_stack(
            batch, "uid", [f"{self.global_steps}-{taken + i}" for i in range(len(batch))]
        )
        self._seg_numbered = (self.global_steps, taken + len(batch))
        return batch

    fetch._seg_research = True  # type: ignore[attr-defined]
    PPOTrainer._next_train_batch = fetch
