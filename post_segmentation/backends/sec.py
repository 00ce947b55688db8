"""SeC: SAM 2's memory, helped by a language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from post_segmentation.backend import BackendConfig, BackendSpec, NeededPackage, PromptKind
from post_segmentation.backends.sam2 import DEVICE_HELP, PACKAGES, WEIGHTS_HELP
from post_segmentation.propagator import Propagator
from post_segmentation.weights import find_model_folder

DEFAULT_WEIGHTS = "OpenIXCLab/SeC-4B"


@dataclass(frozen=True, slots=True)
class SecConfig(BackendConfig):
    """Which model, and where it runs."""

    weights: str = field(default=DEFAULT_WEIGHTS, metadata=WEIGHTS_HELP)
    device: str = field(default="auto", metadata=DEVICE_HELP)


def _build(config: SecConfig) -> Propagator:
    from post_segmentation.sec_propagator import load_sec

    return load_sec(config.weights, config.device)


def _weights(config: SecConfig) -> tuple[Path, ...]:
    return (find_model_folder(config.weights),)


SPEC = BackendSpec(
    name="sec",
    summary="SeC: SAM 2's memory, helped by a language model",
    config_type=SecConfig,
    build=_build,
    prompts=frozenset(PromptKind),
    packages=(
        *PACKAGES,
        NeededPackage("inference", "put the code of github.com/OpenIXCLab/SeC on PYTHONPATH"),
    ),
    weights=_weights,
    on_gpu=True,
)
