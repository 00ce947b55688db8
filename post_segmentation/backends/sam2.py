"""SAM 2, SAM 2.1, EdgeTAM or the tracker of SAM 3, by transformers; the folder's config.json says
which one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from post_segmentation.backend import (
    BackendConfig,
    BackendSpec,
    NeededPackage,
    PromptKind,
    describe,
)
from post_segmentation.propagator import Propagator
from post_segmentation.weights import find_model_folder, is_cached

DEFAULT_WEIGHTS = "facebook/sam2.1-hiera-large"
"""What the authors of Seg-ReSearch propagate with."""

INSTALL = "pip install 'seg-research[sam2]'"
PACKAGES = tuple(
    NeededPackage(module, INSTALL)
    for module in ("torch", "transformers", "safetensors", "huggingface_hub")
)
WEIGHTS_HELP = describe("folder or hub id of a transformers model", "WHERE")
DEVICE_HELP = describe("auto (a GPU if there is one), cpu, cuda or cuda:N", "NAME")


@dataclass(frozen=True, slots=True)
class Sam2Config(BackendConfig):
    """Which model, and how it is run."""

    weights: str | None = field(default=None, metadata=WEIGHTS_HELP)
    """None: `DEFAULT_WEIGHTS`."""
    device: str = field(default="auto", metadata=DEVICE_HELP)
    window: Annotated[int, Field(ge=0)] = field(
        default=32, metadata=describe("frames whose features may wait in main memory", "N")
    )
    """With 32, 0.3 GB of main memory with SAM 2.1-large in bf16, 0.6 GB in fp32."""


def _build(config: Sam2Config) -> Propagator:
    from post_segmentation.sam2_propagator import load_sam2

    return load_sam2(config.weights or DEFAULT_WEIGHTS, config.device, config.window)


def _weights(config: Sam2Config) -> tuple[Path, ...]:
    return (find_model_folder(config.weights or DEFAULT_WEIGHTS),)


def _missing(config: Sam2Config) -> str:
    if config.weights is not None or is_cached(DEFAULT_WEIGHTS):
        return ""
    return (
        f"{DEFAULT_WEIGHTS} is not on this machine"
        " (--backend sam2 downloads it, --weights names a folder)"
    )


SPEC = BackendSpec(
    name="sam2",
    summary="SAM 2, 2.1, EdgeTAM or the tracker of SAM 3, by transformers",
    config_type=Sam2Config,
    build=_build,
    prompts=frozenset(PromptKind),
    packages=PACKAGES,
    weights=_weights,
    on_gpu=True,
    shares_work=True,
    preference=0,
    missing=_missing,
)
