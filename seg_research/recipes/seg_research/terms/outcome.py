"""Was the right thing found? Box, point and key frame (specs seg_research §5.1), on the last key
frame shown before the answer.

Robust where the original can be cheated: an answer must follow a key frame that was really shown,
degenerate boxes are format faults, and several objects where one is asked for are no place at all.
Robust where it is unfair: any point well inside the target is a good point, and where the video
does not show the target, saying so earns every term of this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from seg_research.core.geometry import Norm1000Box, Norm1000Point, inclusive_iou
from seg_research.data.sample import GroundTruth, TargetOnFrame
from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.actions import Answer, ObjectRegion
from seg_research.recipes.seg_research.final_answer import Verdict, read_verdict


@dataclass(frozen=True, slots=True)
class BoxIoU:
    """IoU of the answered box with the target's, in [0, 1].

    Attributes:
        threshold: pay 1 above it and 0 below (published: 0.5); None pays the IoU itself, a gradient
            for weak policies.
    """

    threshold: float | None = 0.5
    name: str = "box_iou"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""

        def score(region: ObjectRegion, target: TargetOnFrame) -> float:
            if region.box is None:
                return 0.0
            iou = inclusive_iou(region.box, target.box)
            return iou if self.threshold is None else float(iou > self.threshold)

        return _score_region(transcript, truth, score)


@dataclass(frozen=True, slots=True)
class BoxL1:
    """1 where the mean absolute difference of the four coordinates is below `limit` thousandths
    (published: 10), else 0; in [0, 1].

    Attributes:
        smooth: beyond the limit pay limit / difference instead of 0, a gradient for weak policies.
    """

    limit: float = 10.0
    smooth: bool = False
    name: str = "box_l1"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""

        def score(region: ObjectRegion, target: TargetOnFrame) -> float:
            difference = math.inf if region.box is None else _mean_l1(region.box, target.box)
            if difference < self.limit:
                return 1.0
            return self.limit / difference if self.smooth else 0.0

        return _score_region(transcript, truth, score)


@dataclass(frozen=True, slots=True)
class PointHit:
    """1 where every answered point lies in the answered box and well inside the target, else 0.

    Well inside: at least `depth` times as far from the mask's border as its deepest point. Where
    the mask is not known, or too thin to measure: in the target's box and nearer than `radius`
    thousandths to its deepest point.

    Attributes:
        radius: exclusive (published: 100).
    """

    depth: float = 0.2
    radius: float = 100.0
    name: str = "point"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""

        def score(region: ObjectRegion, target: TargetOnFrame) -> float:
            box = region.box
            inside_own_box = (
                box is not None and bool(region.points) and all(map(box.contains, region.points))
            )
            return float(inside_own_box and self._well_inside(region.points, target))

        return _score_region(transcript, truth, score)

    def _well_inside(self, points: tuple[Norm1000Point, ...], target: TargetOnFrame) -> bool:
        deepest, *depths = target.mask.depths_px([target.point, *points]) if target.mask else [0.0]
        if deepest:
            return all(0 < depth >= self.depth * deepest for depth in depths)
        return all(
            target.box.contains(p)
            and math.hypot(p.x - target.point.x, p.y - target.point.y) < self.radius
            for p in points
        )


@dataclass(frozen=True, slots=True)
class KeyframeArea:
    """How much of the target the chosen frame shows, relative to the best offered frame: its
    largest component's area, in [0, 1].

    Paid only to trajectories that answer.
    """

    name: str = "keyframe"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        verdict = read_verdict(transcript)
        if verdict.says_absent:
            return float(truth.absent)
        target = _target(verdict, truth)
        return 0.0 if verdict.answer is None or target is None else target.max_conn_area


def _score_region(
    transcript: Transcript,
    truth: GroundTruth,
    score: Callable[[ObjectRegion, TargetOnFrame], float],
) -> float:
    """Score the one answered object; several are a spray, which hits something without knowing
    anything.
    """
    verdict = read_verdict(transcript)
    if verdict.says_absent:
        return float(truth.absent)
    target = _target(verdict, truth)
    match verdict.answer:
        case Answer(objects=(region,)) if target is not None:
            return score(region, target)
        case _:
            return 0.0


def _target(verdict: Verdict, truth: GroundTruth) -> TargetOnFrame | None:
    target = truth.single()
    if verdict.keyframe is None or target is None:
        return None
    return target.frames.get(verdict.keyframe)


def _mean_l1(a: Norm1000Box, b: Norm1000Box) -> float:
    return sum(abs(p - q) for p, q in zip(a.as_list(), b.as_list(), strict=True)) / 4
