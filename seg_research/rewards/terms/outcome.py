"""Was the right thing found? Box, point and key frame (specs seg_research §5.1), on the last key frame shown before the answer.

Robust where the original can be cheated: an answer must follow a key frame that was really shown, degenerate boxes are format faults, and
naming several objects where one is asked for divides the score by their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from seg_research.core.geometry import Norm1000Box, inclusive_iou
from seg_research.core.transcript import Transcript
from seg_research.datasets.sample import FrameTruth, GroundTruth
from seg_research.protocol.actions import ObjectRegion
from seg_research.protocol.verdict import read_verdict


@dataclass(frozen=True, slots=True)
class BoxIoU:
    """IoU of the answered box with the target's, in [0, 1].

    Attributes:
        threshold: pay 1 above it and 0 below (published: 0.5); None pays the IoU itself, a gradient for weak policies.
    """

    threshold: float | None = 0.5
    name: str = "box_iou"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""

        def score(region: ObjectRegion, target: FrameTruth) -> float:
            if region.box is None:
                return 0.0
            iou = inclusive_iou(region.box, target.box)
            return iou if self.threshold is None else float(iou > self.threshold)

        return _best_region(transcript, truth, score)


@dataclass(frozen=True, slots=True)
class BoxL1:
    """1 where the mean absolute difference of the four coordinates is below `limit` thousandths (published: 10), else 0."""

    limit: float = 10.0
    name: str = "box_l1"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""

        def score(region: ObjectRegion, target: FrameTruth) -> float:
            return float(region.box is not None and _mean_l1(region.box, target.box) < self.limit)

        return _best_region(transcript, truth, score)


@dataclass(frozen=True, slots=True)
class PointHit:
    """1 where every answered point lies in the answered box and within `radius` thousandths of the target's deepest point.

    Attributes:
        radius: exclusive (published: 100).
    """

    radius: float = 100.0
    name: str = "point"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""

        def score(region: ObjectRegion, target: FrameTruth) -> float:
            box = region.box
            return float(
                box is not None
                and bool(region.points)
                and all(box.contains(p) and math.hypot(p.x - target.point.x, p.y - target.point.y) < self.radius for p in region.points)
            )

        return _best_region(transcript, truth, score)


@dataclass(frozen=True, slots=True)
class KeyframeArea:
    """How much of the target the chosen frame shows, relative to the best offered frame: its largest component's area, in [0, 1].

    Paid only to trajectories that answer.
    """

    name: str = "keyframe"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        return _best_region(transcript, truth, lambda _, target: target.max_conn_area, share=False)


def _best_region(
    transcript: Transcript, truth: GroundTruth, score: Callable[[ObjectRegion, FrameTruth], float], *, share: bool = True
) -> float:
    """Score of the best answered object, divided by the number answered: spraying boxes is no way to hit."""
    keyframe, answer = read_verdict(transcript)
    target = truth.frames.get(keyframe) if keyframe is not None else None
    if answer is None or target is None:
        return 0.0
    best = max(score(region, target) for region in answer.objects)
    return best / len(answer.objects) if share else best


def _mean_l1(a: Norm1000Box, b: Norm1000Box) -> float:
    return sum(abs(p - q) for p, q in zip(a.as_list(), b.as_list(), strict=True)) / 4
