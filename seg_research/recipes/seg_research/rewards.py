"""What is rewarded: one table of terms, each with its weight and what it pays (specs seg_research
§5.5, §5.6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.compat.terms import compat_terms
from seg_research.recipes.seg_research.final_answer import count_searches, final
from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings
from seg_research.recipes.seg_research.terms.ablation import (
    BinaryProcess,
    DenseImitation,
    LinearProcess,
)
from seg_research.recipes.seg_research.terms.guidance import Guidance
from seg_research.recipes.seg_research.terms.outcome import BoxIoU, BoxL1, KeyframeArea, PointHit
from seg_research.recipes.seg_research.terms.process import Tapering, WellFormed
from seg_research.rewards.rubric import PaidWhen, RewardTerm, Rubric, Term, TermRole
from seg_research.rewards.similarity import LazyEncoder, Similarity, TextEncoder


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process term, paid where a question has annotated steps.

    Attributes:
        shares: what it is paid of the process part, by the presets that it belongs to.
        doc: as in `Term`.
        count: as in `Term`.
        always_logged: logged under the other presets, too.
    """

    score: RewardTerm
    shares: Mapping[Preset, float]
    doc: str
    count: Callable[[Transcript], int] | None = None
    always_logged: bool = False


def build_rubric(settings: RewardSettings, encoder: TextEncoder | None = None) -> Rubric:
    """Return the rubric that these settings describe.

    Args:
        settings: mode, preset, thresholds and weights.
        encoder: embeds queries and annotated steps; by default the one that the settings name,
            loaded when the first text is embedded.
    """
    similarity = Similarity(encoder or LazyEncoder(settings.encoder, settings.encoder_threads))
    process = tuple(
        _process_term(row, settings)
        for row in process_rows(settings, similarity)
        if row.always_logged or settings.preset in row.shares
    )
    terms = (*outcome_terms(settings), format_term(settings), *process)
    if settings.mode is Mode.COMPAT:
        originals = compat_terms(settings, similarity)
        terms = tuple(replace(term, score=originals[term.name]) for term in terms)
    return Rubric(terms, final, similarity=similarity)


def all_terms(settings: RewardSettings) -> tuple[Term, ...]:
    """Return every term of the robust mode, whatever the preset; for documents."""
    rows = process_rows(settings, Similarity(LazyEncoder(settings.encoder)))
    process = (_process_term(row, settings) for row in rows)
    return (*outcome_terms(settings), format_term(settings), *process)


def outcome_terms(settings: RewardSettings) -> tuple[Term, ...]:
    """Return the terms that judge the answer."""
    weights = settings.weights
    return (
        Term(
            BoxIoU(None if settings.dense else settings.iou_threshold),
            weights.box_iou,
            "1 if IoU > `iou_threshold` (0.5), both end coordinates counted; dense: the IoU itself",
        ),
        Term(
            BoxL1(settings.l1_limit, settings.dense),
            weights.box_l1,
            "1 if the mean difference of the four coordinates is < `l1_limit` "
            "(10 thousandths of the frame); dense: beyond the limit, limit / difference",
        ),
        Term(
            PointHit(settings.point_depth, settings.point_radius),
            weights.point,
            "1 if every point is inside the answered box and well inside the target",
        ),
        Term(
            KeyframeArea(),
            weights.keyframe,
            "area of the target's largest component on the chosen frame, "
            "relative to the best offered frame",
        ),
    )


def format_term(settings: RewardSettings) -> Term:
    """Return the format term, which takes the place of the process part where a question has no
    annotated steps.
    """
    return Term(
        WellFormed(settings.dense),
        0.0 if settings.preset is Preset.OUTCOME_ONLY else _process_weight(settings),
        "1 if every turn is one thought and one valid action, and the last is an answer on a shown "
        "frame, or that no frame shows it; dense: by the share of good turns, 0.25–0.75 answered, "
        "0.25–0.5 answered on no frame, 0–0.25 unanswered",
        TermRole.PROCESS,
        PaidWhen.ALWAYS if settings.dense else PaidWhen.WITHOUT_STEPS,
    )


def process_rows(settings: RewardSettings, similarity: Similarity) -> tuple[ProcessRow, ...]:
    """Return the terms that judge the way to the answer, of all presets."""
    return (
        ProcessRow(
            Tapering(settings.p, settings.budget),
            {Preset.HIERARCHICAL: 0.5, Preset.TPR_ONLY: 0.5},
            "1 − (1 − `p`)^k; k = useful searches + format",
            count=count_searches,
            always_logged=True,
        ),
        ProcessRow(
            Guidance(similarity, settings.guidance_cosine),
            {Preset.HIERARCHICAL: 0.5, Preset.IGR_ONLY: 0.5},
            "1 if the first answered query's cosine to some annotated step is "
            "> `guidance_cosine` (0.5)",
        ),
        ProcessRow(
            DenseImitation(similarity, settings.guidance_cosine),
            {Preset.RIGID_STEPS: 1.0},
            "share of steps whose own search (first for first, …) has a cosine > `guidance_cosine`",
        ),
        ProcessRow(
            BinaryProcess(),
            {Preset.BINARY: 1.0},
            "1 if well-formed: searches, one key frame, the answer",
        ),
        ProcessRow(
            LinearProcess(settings.budget),
            {Preset.LINEAR: 1.0},
            "(useful searches + format) / (most there can be + 1)",
        ),
    )


def _process_term(row: ProcessRow, settings: RewardSettings) -> Term:
    return Term(
        row.score,
        _process_weight(settings) * row.shares.get(settings.preset, 0.0),
        row.doc,
        TermRole.PROCESS,
        PaidWhen.WITH_STEPS,
        only_answered=settings.mode is Mode.ROBUST,
        count=row.count,
    )


def _process_weight(settings: RewardSettings) -> float:
    # Half of a dense process part is the graded format: the other terms give a policy that never
    # answers nothing to climb.
    return settings.weights.process / 2 if settings.dense else settings.weights.process
