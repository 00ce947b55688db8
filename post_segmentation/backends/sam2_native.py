"""SAM 2 by Meta's own package, for its `.pt` checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from post_segmentation.backend import (
    BackendConfig,
    BackendSpec,
    NeededPackage,
    PromptKind,
    describe,
)
from post_segmentation.backends.sam2 import DEVICE_HELP, INSTALL
from post_segmentation.propagator import Propagator
from post_segmentation.weights import find_checkpoint


@dataclass(frozen=True, slots=True)
class Sam2NativeConfig(BackendConfig):
    """Which checkpoint, and where it runs."""

    weights: str = field(
        metadata=describe("checkpoint file, for instance sam2.1_hiera_large.pt", "FILE")
    )
    """Its name tells the architecture."""
    device: str = field(default="auto", metadata=DEVICE_HELP)


def _build(config: Sam2NativeConfig) -> Propagator:
    from post_segmentation.sam2_native_propagator import load_sam2_native

    return load_sam2_native(config.weights, config.device)


def _weights(config: Sam2NativeConfig) -> tuple[Path, ...]:
    return (find_checkpoint(config.weights),)


SPEC = BackendSpec(
    name="sam2-native",
    summary="SAM 2 by Meta's package",
    config_type=Sam2NativeConfig,
    build=_build,
    prompts=frozenset(PromptKind),
    packages=(
        NeededPackage("torch", INSTALL),
        NeededPackage("sam2", "pip install git+https://github.com/facebookresearch/sam2"),
    ),
    weights=_weights,
    on_gpu=True,
)
