"""verl's FSDP2 engine under the device name of our CPU platform: differs in where weights of a
reference model lie, and keeps fp32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from verl.utils.fsdp_utils import merged_lora_context, normalize_peft_param_name
from verl.utils.model import convert_weight_keys
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device=["cpu"])
class CpuEngine(FSDPEngineWithLMHead):
    """Keeps weights where they are: verl moves those of a reference model to pinned memory, which
    torch refuses without an accelerator.
    """

    def _build_fsdp_module(self, module: Any) -> Any:
        asked = self.engine_config
        self.engine_config = dataclasses.replace(asked, forward_only=False, offload_policy=False)
        try:
            return super()._build_fsdp_module(module)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            self.engine_config = asked

    def _merged_lora_per_tensor_param(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Give the merged weights one by one, as they are; verl rounds them to bf16, which moves
        log-probabilities by 0.01.
        """
        module: Any = self.module  # pyright: ignore[reportAttributeAccessIssue]
        with merged_lora_context(module, backup_adapters=True):
            for name, weight in convert_weight_keys(
                normalize_peft_param_name(module.state_dict()), module
            ).items():
                # Copies, because the base weights return to their place when this ends.
                yield (
                    name,
                    (weight.full_tensor() if isinstance(weight, DTensor) else weight)
                    .detach()
                    .clone(),
                )
