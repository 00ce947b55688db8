"""What verl imports in each process of a cold start
(VERL_USE_EXTERNAL_MODULES=seg_research.training.sft.plugin).
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.nn.functional as F
import verl.utils.distributed as distributed
import verl.utils.torch_functional as functional

from seg_research.policies.processor import allow_missing_torchvision
from seg_research.training.launch.parent_watchdog import THREADS_VARIABLE, end_with_launcher


def _initialize_on_cpu(timeout_second: int = 36_000) -> tuple[int, int, int]:
    """Join the process group over the CPU alone; verl would name the CPU twice, which torch
    refuses.
    """
    torch.distributed.init_process_group("cpu:gloo", timeout=timedelta(seconds=timeout_second))
    return (
        int(os.environ["LOCAL_RANK"]),
        torch.distributed.get_rank(),
        torch.distributed.get_world_size(),
    )


def _logprobs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each label in one pass; verl's loop over tokens costs a CPU a
    seventh of a step (measured).
    """
    return -F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="none"
    ).view(labels.shape)


def _begin_whole_epochs() -> None:
    """Let a run that was stopped at the end of an epoch begin the next one.

    verl restores its data loader to the end of the old one: the next epoch is empty, and the run
    ends that much too early without a word (0.9.1). Can go when `tests/smoke/test_sft_smoke.py`,
    which resumes there, passes without it.
    """
    from verl.utils.checkpoint import CheckpointHandler

    original = CheckpointHandler._load_dataloader_state

    def load(self: CheckpointHandler, checkpoint_path: str) -> None:
        if self.resume_global_step % len(self.train_dataloader):
            original(self, checkpoint_path)

    CheckpointHandler._load_dataloader_state = load


def _register() -> None:
    end_with_launcher()
    allow_missing_torchvision()
    if os.environ.get("VERL_PLATFORM") == "cpu":
        from seg_research.training.cpu import platform as cpu_platform  # noqa: F401  registers itself

        distributed.initialize_global_process_group = _initialize_on_cpu
        functional.logprobs_from_logits_v2 = _logprobs
        torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))
    # The checkpoint's modules ask for the device while they are imported, so that the platform has
    # to be known.
    _begin_whole_epochs()


_register()
