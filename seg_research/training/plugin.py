"""What verl imports in each of its processes
(VERL_USE_EXTERNAL_MODULES=seg_research.training.plugin).

An import error here stops the run, unlike one in an entry point, which verl swallows.
"""

from __future__ import annotations

import os

import torch
from verl.workers.rollout import base as rollout_base
from verl.workers.rollout.replica import RolloutReplicaRegistry

from seg_common.errors import UsageError
from seg_research.policies.processor import allow_missing_torchvision
from seg_research.training.extension_points import check_extension_points
from seg_research.training.launch.parent_watchdog import (
    THREADS_VARIABLE,
    end_with_launcher,
    is_started_by_launcher,
)
from seg_research.training.patches import Process, apply_patches, on_cpu

ROLLOUT_NAME = "transformers"


def _refuse_another_verl() -> None:
    """Compare the installed verl with what we take hold of, before anything runs.

    Raises:
        UsageError: something differs.
    """
    broken = [status for status in check_extension_points() if not status.ok]
    if broken:
        first, others = broken[0], len(broken) - 1
        more = f" (and {others} more; seg-research doctor lists them)" if others else ""
        raise UsageError(
            f"this verl is not the one that was tested: {first.name}: {first.detail}{more}; "
            "see verl/UPGRADING.md"
        )


def _load_replica() -> type:
    from seg_research.training.rollout.transformers_server import TransformersReplica

    return TransformersReplica


def _register() -> None:
    end_with_launcher()
    allow_missing_torchvision()
    # The adapter registry has no public setter in 0.9.1; extension_points.toml watches it.
    rollout_base._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = (
        "seg_research.training.rollout.transformers_server.TransformersAdapter"
    )
    RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)
    if on_cpu():
        # Registers itself.
        from seg_research.training.cpu import platform as _platform  # noqa: F401

        torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))
    apply_patches(Process.REINFORCEMENT)
    if on_cpu():
        # After the patches, as it imports what one of them replaces.
        from seg_research.training.cpu import engine as cpu_engine  # noqa: F401  registers itself
    if is_started_by_launcher():
        _refuse_another_verl()


_register()
