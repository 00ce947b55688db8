"""The original's terms over the decoded text: first match wins, one-line answers, +1 pixels, order
unchecked, booleans are numbers.

Predictions are used as the JSON they are: whatever a plain computation on it cannot do earns 0, and
nothing else is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.compat import text as read
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.seg_research.terms.guidance import Guidance
from seg_research.rewards.rubric import RewardTerm
from seg_research.rewards.similarity import Similarity

Measure = Callable[[Any, Mapping[str, Any]], float]
"""Scores a decoded answer against the target on the chosen frame; both have `bbox_2d` and
`point_2d`.
"""

_UNUSABLE = (TypeError, KeyError, IndexError, ValueError, OverflowError, ZeroDivisionError)
"""What arithmetic on foreign JSON raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTruth(GroundTruth):
    """A ground truth as it was recorded; its target lacks what our types refuse, such as a target
    without area.

    Attributes:
        recorded: `bbox_2d`, `point_2d`, `max_conn_area` by frame id as it was written.
    """

    recorded: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class OutcomeTerm:
    """A measure of the first one-line answer on the first key frame named anywhere in the text; 0
    where either is unusable.
    """

    name: str
    measure: Measure

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        text = read.decoded_response(transcript)
        keyframe, body = read.first_keyframe(text), read.first_answer_on_one_line(text)
        if keyframe is None or body is None:
            return 0.0
        return _measured(self.measure, body, _target(truth, keyframe))


@dataclass(frozen=True, slots=True)
class ValidationIoU:
    """What the original validates by: the plain IoU of the first one-line answer with the target on
    the *last* key frame named.
    """

    name: str = "acc"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        text = read.decoded_response(transcript)
        keyframe, body = read.last_keyframe(text), read.first_answer_on_one_line(text)
        if keyframe is None or body is None:
            return 0.0
        return _measured(
            lambda answer, target: plus_one_iou(answer["bbox_2d"], target["bbox_2d"]),
            body,
            _target(truth, keyframe),
        )


@dataclass(frozen=True, slots=True)
class TextTerm:
    """A term that needs the text alone."""

    name: str
    judge: Callable[[str], float]

    def __call__(self, transcript: Transcript, truth: GroundTruth | None = None) -> float:
        """Score one transcript."""
        return self.judge(read.decoded_response(transcript))


@dataclass(frozen=True, slots=True)
class TaperingOfText:
    """1 - (1 - p)^k with k = search tags behind a thought, at most `budget` (0: as many as there
    are steps), + well-formed; in [0, 1).
    """

    p: float = 0.7
    budget: int = 10
    name: str = "tapering"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        text = read.decoded_response(transcript)
        budget = self.budget or len(truth.steps)
        return 1 - (1 - self.p) ** (
            min(read.count_thoughtful_searches(text), budget) + well_formed(text)
        )


@dataclass(frozen=True, slots=True)
class DenseImitationOfText:
    """Number of text queries nearer than `threshold` to the annotated step of the same position;
    None without annotated steps.
    """

    similarity: Similarity
    threshold: float = 0.5
    name: str = "dense_imitation"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float | None:
        """Score one transcript."""
        if not truth.steps:
            return None
        pairs = zip(self.queries(transcript, truth), truth.steps, strict=False)
        return float(
            sum(self.similarity.best(query, [step]) > self.threshold for query, step in pairs)
        )

    def queries(self, transcript: Transcript, truth: GroundTruth) -> list[str]:
        """Return the queries that have a step."""
        return list(islice(read.text_queries(read.decoded_response(transcript)), len(truth.steps)))


def compat_terms(settings: RewardSettings, similarity: Similarity) -> dict[str, RewardTerm]:
    """Return every term of the original by name, the ablations' among them."""
    terms: tuple[RewardTerm, ...] = (
        *outcome_terms(
            iou=settings.iou_threshold, l1=settings.l1_limit, radius=settings.point_radius
        ),
        TextTerm("format", well_formed),
        Guidance(similarity, settings.guidance_cosine, first_text_query),
        TaperingOfText(settings.p, settings.budget),
        TextTerm("binary_process", binary_process),
        TextTerm("linear_process", linear_process),
        DenseImitationOfText(similarity, settings.guidance_cosine),
        ValidationIoU(),
    )
    return {term.name: term for term in terms}


def outcome_terms(
    *, iou: float = 0.5, l1: float = 10.0, radius: float = 100.0
) -> tuple[OutcomeTerm, ...]:
    """Return box IoU, box L1, point and key frame (specs §5.1) with their thresholds; units of the
    answer's coordinates.
    """

    def box_iou(answer: Any, target: Mapping[str, Any]) -> float:
        return float(plus_one_iou(answer["bbox_2d"], target["bbox_2d"]) > iou)

    def box_l1(answer: Any, target: Mapping[str, Any]) -> float:
        box, wanted = answer["bbox_2d"], target["bbox_2d"]
        return float(
            (
                abs(box[0] - wanted[0])
                + abs(box[1] - wanted[1])
                + abs(box[2] - wanted[2])
                + abs(box[3] - wanted[3])
            )
            / 4
            < l1
        )

    def point(answer: Any, target: Mapping[str, Any]) -> float:
        (x, y), box, wanted = answer["point_2d"][:2], answer["bbox_2d"], target["point_2d"]
        inside = box[0] <= x <= box[2] and box[1] <= y <= box[3]
        return float(inside and math.sqrt((x - wanted[0]) ** 2 + (y - wanted[1]) ** 2) < radius)

    def keyframe(answer: Any, target: Mapping[str, Any]) -> float:
        return float(target.get("max_conn_area", 0))

    return (
        OutcomeTerm("box_iou", box_iou),
        OutcomeTerm("box_l1", box_l1),
        OutcomeTerm("point", point),
        OutcomeTerm("keyframe", keyframe),
    )


def plus_one_iou(box: Any, target: Any) -> float:
    """IoU with both end coordinates counted, on boxes that nobody checked; operands stand as the
    original has them, for NaN's sake.

    Raises:
        TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError: the box is none.
    """
    width = min(box[2], target[2]) - max(box[0], target[0])
    height = min(box[3], target[3]) - max(box[1], target[1])
    intersection = (width + 1) * (height + 1) if width > 0 and height > 0 else 0
    union = (
        (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        + (target[2] - target[0] + 1) * (target[3] - target[1] + 1)
        - intersection
    )
    return float(intersection) / union


def well_formed(text: str) -> float:
    """1 if a thought precedes some key frame, and the first answer behind a thought has just a box
    of 4 and a point of 2 numbers.
    """
    body = read.first_answer_after_thought(text)
    if body is None or not read.has_thought_before_keyframe(text):
        return 0.0
    try:
        answer: object = json.loads(body.strip())
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(answer, dict):
        return 0.0
    fields = cast("dict[str, object]", answer)
    return float(
        fields.keys() == {"bbox_2d", "point_2d"}
        and _are_numbers(fields["bbox_2d"], count=4)
        and _are_numbers(fields["point_2d"], count=2)
    )


def linear_process(text: str) -> float:
    """Search tags behind a thought + well-formed, without a bound."""
    return read.count_thoughtful_searches(text) + well_formed(text)


def binary_process(text: str) -> float:
    """1 if the whole text is one chain; 0 for every text in which an observation stands between key
    frame and answer.
    """
    return float(read.is_one_chain(text))


def first_text_query(transcript: Transcript) -> str | None:
    """Return the query whose embedding is compared with the annotated steps."""
    return next(read.text_queries(read.decoded_response(transcript)), None)


def _measured(measure: Measure, body: str, target: Mapping[str, Any] | None) -> float:
    try:
        answer: object = json.loads(body.strip())
        return 0.0 if target is None else measure(answer, target)
    except (*_UNUSABLE, RecursionError):
        return 0.0


def _target(truth: GroundTruth, keyframe: str) -> Mapping[str, Any] | None:
    """Look a frame up by its digits as written: 07 is not 7."""
    if isinstance(truth, RecordedTruth):
        return truth.recorded.get(keyframe)
    target = truth.single()
    for frame_id, frame in ({} if target is None else target.frames).items():
        if str(frame_id) == keyframe:
            return {
                "bbox_2d": frame.box.as_list(),
                "point_2d": [frame.point.x, frame.point.y],
                "max_conn_area": frame.max_conn_area,
            }
    return None


def _are_numbers(value: object, *, count: int) -> bool:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return len(items) == count and all(isinstance(item, int | float) for item in items)
