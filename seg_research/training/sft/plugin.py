"""What verl imports in each process of a cold start
(VERL_USE_EXTERNAL_MODULES=seg_research.training.sft.plugin).
"""

from __future__ import annotations

import os

import torch

from seg_research.policies.processor import allow_missing_torchvision
from seg_research.training.launch.parent_watchdog import THREADS_VARIABLE, end_with_launcher
from seg_research.training.patches import Process, apply_patches, on_cpu


def _register() -> None:
    end_with_launcher()
    allow_missing_torchvision()
    if on_cpu():
        # Registers itself.
        from seg_research.training.cpu import platform as _platform  # noqa: F401

        torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))
    apply_patches(Process.SUPERVISED)


_register()
