"""The baseline: what was answered, unchanged on every frame."""

from __future__ import annotations

from dataclasses import dataclass

from post_segmentation.backend import BackendConfig, BackendSpec, PromptKind
from post_segmentation.propagator import Propagator


@dataclass(frozen=True, slots=True)
class BoxConfig(BackendConfig):
    """It has no options."""


def _build(_: BoxConfig) -> Propagator:
    from post_segmentation.box_propagator import BoxPropagator

    return BoxPropagator()


SPEC = BackendSpec(
    name="box",
    summary="the box, filled, on every frame",
    config_type=BoxConfig,
    build=_build,
    prompts=frozenset({PromptKind.BOX, PromptKind.POINTS, PromptKind.MASK}),
)
