"""What a vLLM worker on a CPU needs so that a trainer can give it new weights. Imported by vLLM's
worker process alone.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.model_executor.layers import utils as layer_utils  # type: ignore[import-not-found]


def _keep_weight(layer: Any, remove_weight: bool) -> None:
    """Multiply with the layer's weight as it is at the time of the call."""
    layer.cpu_linear = torch.nn.functional.linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's worker extension, with linear layers that keep their weights.

    On a CPU vLLM repacks the weights of linear layers once, at loading, and leaves empty tensors in
    their place: later weights would fail to load, or would be loaded and never used.
    """

    def __new__(cls, **kwargs: Any) -> CpuWorkerExtension:
        """Change the loader before the worker loads its model."""
        layer_utils.dispatch_cpu_unquantized_gemm = _keep_weight
        return super().__new__(cls, **kwargs)
