"""What verl imports in each of its processes (VERL_USE_EXTERNAL_MODULES=seg_research.training.plugin).

An import error here stops the run, unlike one in an entry point, which verl swallows.
"""

from __future__ import annotations

import os

import torch
from verl.workers.rollout import base as rollout_base
from verl.workers.rollout.replica import RolloutReplicaRegistry

from seg_research.models.processor import allow_missing_torchvision
from seg_research.training.lifeline import end_with_launcher

ROLLOUT_NAME = "transformers"
THREADS_VARIABLE = "SEG_RESEARCH_TORCH_THREADS"


def _load_replica() -> type:
    from seg_research.training.rollout_server import TransformersReplica

    return TransformersReplica


def _register() -> None:
    end_with_launcher()
    allow_missing_torchvision()
    # The adapter registry has no public setter in 0.9.1; extension_points.toml watches it.
    rollout_base._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = "seg_research.training.rollout_server.TransformersAdapter"
    RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)
    if os.environ.get("VERL_PLATFORM") == "cpu":
        from seg_research.training import cpu_platform  # noqa: F401  registers itself
        from seg_research.training.verl_patches import accept_cpu_process_group

        accept_cpu_process_group()
        torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))
    # The trainer's modules ask for the device while they are imported, so that the platform has to be known.
    from seg_research.training import advantage, step_watch

    advantage.install()
    step_watch.install()


_register()
