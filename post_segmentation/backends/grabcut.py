"""GrabCut on the key frame, template and optical flow from there on: no weights needed."""

from __future__ import annotations

from dataclasses import dataclass

from post_segmentation.backend import BackendConfig, BackendSpec, PromptKind
from post_segmentation.propagator import Propagator


@dataclass(frozen=True, slots=True)
class GrabCutConfig(BackendConfig):
    """It has no options."""


def _build(_: GrabCutConfig) -> Propagator:
    from post_segmentation.grabcut_propagator import GrabCutPropagator

    return GrabCutPropagator()


SPEC = BackendSpec(
    name="grabcut",
    summary="GrabCut on the key frame, optical flow from there on; no weights",
    config_type=GrabCutConfig,
    build=_build,
    prompts=frozenset(PromptKind),
    preference=1,
)
