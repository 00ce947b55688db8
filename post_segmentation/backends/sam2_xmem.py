"""SAM 2 on the key frames, XMem on all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from post_segmentation.backend import BackendConfig, BackendSpec, PromptKind, describe
from post_segmentation.backends.sam2 import DEFAULT_WEIGHTS, DEVICE_HELP, PACKAGES, WEIGHTS_HELP
from post_segmentation.propagator import Propagator
from post_segmentation.weights import find_checkpoint, find_model_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam2XMemConfig(BackendConfig):
    """Which two models, and where they run."""

    weights: str = field(default=DEFAULT_WEIGHTS, metadata=WEIGHTS_HELP)
    xmem_weights: str = field(metadata=describe("checkpoint file of XMem (XMem.pth)", "FILE"))
    device: str = field(default="auto", metadata=DEVICE_HELP)


def _build(config: Sam2XMemConfig) -> Propagator:
    from post_segmentation.xmem.propagator import load_sam2_xmem

    return load_sam2_xmem(config.weights, config.xmem_weights, config.device)


def _weights(config: Sam2XMemConfig) -> tuple[Path, ...]:
    return find_model_folder(config.weights), find_checkpoint(config.xmem_weights)


SPEC = BackendSpec(
    name="sam2+xmem",
    summary="SAM 2 on the key frame, XMem from there on",
    config_type=Sam2XMemConfig,
    build=_build,
    prompts=frozenset(PromptKind),
    packages=PACKAGES,
    weights=_weights,
    on_gpu=True,
    shares_work=True,
)
