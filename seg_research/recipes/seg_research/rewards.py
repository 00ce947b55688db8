"""From settings to a rubric: which terms, which weights (specs seg_research §5.5, §5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from seg_research.recipes.seg_research.compat.terms import compat_terms
from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings
from seg_research.recipes.seg_research.terms.ablation import (
    BinaryProcess,
    DenseImitation,
    LinearProcess,
)
from seg_research.recipes.seg_research.terms.guidance import Guidance
from seg_research.recipes.seg_research.terms.outcome import BoxIoU, BoxL1, KeyframeArea, PointHit
from seg_research.recipes.seg_research.terms.process import Tapering, WellFormed
from seg_research.rewards.rubric import Gate, Part, RewardTerm, Rubric, Weighted
from seg_research.rewards.similarity import LazyEncoder, Similarity, TextEncoder

PROCESS_SHARES: Mapping[Preset, Mapping[str, float]] = MappingProxyType(
    {
        Preset.HIERARCHICAL: {"guidance": 0.5, "tapering": 0.5},
        Preset.OUTCOME_ONLY: {},
        Preset.RIGID_STEPS: {"dense_imitation": 1.0},
        Preset.BINARY: {"binary_process": 1.0},
        Preset.LINEAR: {"linear_process": 1.0},
        Preset.IGR_ONLY: {"guidance": 0.5},
        Preset.TPR_ONLY: {"tapering": 0.5},
    }
)
"""What the process part pays where a question has annotated steps; where it has none, format takes
its place.
"""


def build_rubric(settings: RewardSettings, encoder: TextEncoder | None = None) -> Rubric:
    """Return the rubric that these settings describe.

    Args:
        settings: mode, preset, thresholds and weights.
        encoder: embeds queries and annotated steps; by default the one that the settings name,
            loaded when the first text is embedded.
    """
    similarity = Similarity(encoder or LazyEncoder(settings.encoder, settings.encoder_threads))
    robust = settings.mode is Mode.ROBUST
    terms = robust_terms(settings, similarity) if robust else compat_terms(settings, similarity)
    weights, shares = settings.weights, PROCESS_SHARES[settings.preset]
    # Half of a dense process part is the graded format: the other terms give a policy that never
    # answers nothing to climb.
    process = weights.process / 2 if settings.dense else weights.process
    return Rubric(
        (
            Weighted(terms["box_iou"], weights.box_iou),
            Weighted(terms["box_l1"], weights.box_l1),
            Weighted(terms["point"], weights.point),
            Weighted(terms["keyframe"], weights.keyframe),
            Weighted(
                terms["format"],
                process if shares else 0.0,
                Part.PROCESS,
                Gate.ALWAYS if settings.dense else Gate.WITHOUT_STEPS,
            ),
            *(
                Weighted(
                    terms[name],
                    process * shares.get(name, 0.0),
                    Part.PROCESS,
                    Gate.WITH_STEPS,
                    only_answered=robust,
                )
                for name in dict.fromkeys(("tapering", *shares))
            ),
        ),
        similarity,
    )


def robust_terms(settings: RewardSettings, similarity: Similarity) -> dict[str, RewardTerm]:
    """Return every robust term by name."""
    terms: tuple[RewardTerm, ...] = (
        BoxIoU(None if settings.dense else settings.iou_threshold),
        BoxL1(settings.l1_limit, settings.dense),
        PointHit(settings.point_depth, settings.point_radius),
        KeyframeArea(),
        WellFormed(settings.dense),
        Guidance(similarity, settings.guidance_cosine),
        Tapering(settings.p, settings.budget),
        BinaryProcess(),
        LinearProcess(settings.budget),
        DenseImitation(similarity, settings.guidance_cosine),
    )
    return {term.name: term for term in terms}
