"""What a vLLM worker on a CPU needs so that a trainer can give it new weights. Imported by vLLM's
worker process alone.
"""

from __future__ import annotations

from typing import Any

from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from seg_research.training.patches import Process, apply_patches


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's worker extension, with linear layers that keep their weights."""

    def __new__(cls, **kwargs: Any) -> CpuWorkerExtension:
        """Change the loader before the worker loads its model."""
        apply_patches(Process.VLLM_WORKER)
        return super().__new__(cls, **kwargs)
