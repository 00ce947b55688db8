"""SeC (OpenIXCLab/SeC), when its code is on the path: SAM 2's memory, and a language model that is
shown the object when scenes change.

One object a session: it is shown the key frame's mask of a single object. Needs a GPU; its code
moves tensors there itself.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from post_segmentation.sam2_native_propagator import Sam2NativePropagator
from post_segmentation.torch_device import find_device
from post_segmentation.weights import find_model_folder
from seg_common.errors import UsageError
from seg_research.core.video import FramePosition


def load_sec(weights: str, device: str) -> SecPropagator:
    """Load SeC.

    Raises:
        ModuleNotFoundError: its code is not on the path.
        UsageError: its weights or a GPU are missing.
    """
    from inference.configuration_sec import SeCConfig  # pyright: ignore[reportMissingImports]
    from inference.modeling_sec import SeCModel  # pyright: ignore[reportMissingImports]
    from transformers import AutoTokenizer

    where = find_device(device)
    if where.type != "cuda":
        raise UsageError("back-end sec needs a GPU; on the CPU use --backend sam2 or grabcut")
    folder = find_model_folder(weights)
    config = SeCConfig.from_pretrained(folder)
    config.apply_postprocessing = False
    config.hydra_overrides_extra = ["++model.non_overlap_masks=true"]
    model = (
        SeCModel.from_pretrained(folder, config=config, torch_dtype=torch.bfloat16).eval().to(where)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True, use_fast=False)
    return SecPropagator(model, tokenizer, where)


class SecPropagator(Sam2NativePropagator):
    """Masks by SeC."""

    objects_per_session = 1

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:
        """Take a model that is on the device."""
        super().__init__(model.grounding_encoder, device)
        self._model, self._tokenizer = model, tokenizer

    def _sweep(
        self, state: Any, start: FramePosition, reverse: bool, key_NHW: NDArray[np.bool_]
    ) -> Iterator[tuple[int, Any]]:
        sweep = self._model.propagate_in_video(
            state,
            start_frame_idx=int(start),
            reverse=reverse,
            init_mask=key_NHW,
            tokenizer=self._tokenizer,
        )
        for position, _, logits_N1HW in sweep:
            yield position, logits_N1HW
