"""From frames to a table, in one stated order.

Frames are averaged within a sample first (`SampleScore`): a sample is one question about one
target, so where a benchmark has one question an object, "per object" is the same thing. `Averaging`
names what happens next. What is missing or broken counts 0 and is reported beside the means. Axes:
S samples, C targets, G groups (the abilities, then overall), M measures, B draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from seg_research.metrics.bootstrap import Floats, interval


class Averaging(StrEnum):
    """What weighs the same in J and F.

    Attributes:
        SAMPLES: frame → sample → mean of samples. OK-VOS, MeViS, ReasonVOS, Long-RVOS; DAVIS-2017
            with a sample an object; Ref-DAVIS17 with a sample an expression.
        FRAMES: the frames of all samples in one mean; a long video weighs more.
        ABILITIES: as SAMPLES within an ability; overall is the mean of the abilities, however many
            samples each has. ReVOS (referring, reasoning), Ref-SAV; Ref-DAVIS17 by annotator, with
            the annotator as ability.
    """

    SAMPLES = "samples"
    FRAMES = "frames"
    ABILITIES = "abilities"


class Measure(StrEnum):
    """Columns of the table, in this order.

    Attributes:
        J: region similarity, averaged as `Averaging` says.
        F: boundary accuracy, the same.
        JF: mean of the two.
        G_IOU: J with every frame (image) weighing the same.
        C_IOU: common pixels of all frames over pixels of either mask.
        T_IOU: agreement on the frames that show the target, mean over samples.
    """

    J = "J"
    F = "F"
    JF = "JF"
    G_IOU = "gIoU"
    C_IOU = "cIoU"
    T_IOU = "tIoU"


@dataclass(frozen=True, slots=True)
class SampleScore:
    """Score of one question.

    Attributes:
        target: names the object asked about; questions with one target are drawn together for the
            intervals.
        region: mean J over the frames that have ground truth, in [0, 1].
        boundary: mean F over the same frames, in [0, 1].
        temporal: agreement on the frames that show the target, in [0, 1].
        num_frames: frames averaged over.
        num_missing_frames: those among them without a predicted mask; each went into the means as
            0.
        num_broken_frames: those among them that could not be judged; each went into the means as 0.
        common_px: pixels of truth and prediction both, over all frames.
        either_px: pixels of at least one of them.
        faults: what is broken, in words, the first few.
    """

    sample_id: str
    ability: str
    target: str
    region: float
    boundary: float
    temporal: float
    num_frames: int
    num_missing_frames: int = 0
    num_broken_frames: int = 0
    common_px: int = 0
    either_px: int = 0
    faults: tuple[str, ...] = ()

    @property
    def is_absent(self) -> bool:
        """Whether no frame has a predicted mask."""
        return 0 < self.num_frames == self.num_missing_frames


class Estimate(NamedTuple):
    """A score in per cent, with its 95 % interval; None where all samples share one target, which
    says nothing about others.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Scores of a group of samples.

    Attributes:
        num_absent: samples without any mask.
        num_missing: samples that lack at least one mask, the absent included.
        num_missing_frames: masks they lack altogether.
        num_broken: samples with a file that could not be judged.
        num_broken_frames: frames that could not be judged.
    """

    scores: Mapping[Measure, Estimate]
    num_samples: int
    num_absent: int
    num_missing: int
    num_missing_frames: int
    num_broken: int
    num_broken_frames: int

    def to_json(self) -> dict[str, Any]:
        """Return the group's entry in a result file."""
        return {
            **{str(measure): estimate.mean for measure, estimate in self.scores.items()},
            "interval_95": {
                str(measure): None if e.low is None else [e.low, e.high]
                for measure, e in self.scores.items()
            },
            "n": self.num_samples,
            "absent": self.num_absent,
            "missing": self.num_missing,
            "missing_frames": self.num_missing_frames,
            "broken": self.num_broken,
            "broken_frames": self.num_broken_frames,
        }


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of a whole benchmark.

    Attributes:
        ability: groups by ability, in order of first appearance.
        present: overall without the absent samples, as evaluators that skip them would have it;
            None if all are absent.
    """

    averaging: Averaging
    overall: GroupScore
    ability: Mapping[str, GroupScore]
    present: GroupScore | None
    samples: tuple[SampleScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result file: groups in per cent, samples as [J, F, ability] in 0..1, as the
        original's `result.json` has them.
        """
        return {
            "averaging": str(self.averaging),
            "overall": self.overall.to_json(),
            "overall_without_absent": None if self.present is None else self.present.to_json(),
            "ability": {name: group.to_json() for name, group in self.ability.items()},
            "broken": {s.sample_id: list(s.faults) for s in self.samples if s.faults},
            "samples": {s.sample_id: [s.region, s.boundary, s.ability] for s in self.samples},
        }

    def to_markdown(self) -> str:
        """Return a table with one row an ability and one for all."""
        lines = [
            "| ability | samples | J | F | J&F | 95 % | gIoU | cIoU | tIoU | missing | broken |",
            "|---|---:|---:|---:|---:|:---:|---:|---:|---:|---:|---:|",
            *(_row(name, group) for name, group in self.ability.items()),
            _row("overall", self.overall),
        ]
        return "\n".join(lines) + "\n"


def aggregate(
    samples: Iterable[SampleScore], averaging: Averaging = Averaging.SAMPLES
) -> ScoreTable:
    """Average samples per ability and over all, with 95 % bootstrap intervals.

    Raises:
        ValueError: there is no sample.
    """
    listed = tuple(samples)
    if not listed:
        raise ValueError("no samples to average")
    *abilities, overall = _groups(listed, averaging)
    present = tuple(s for s in listed if not s.is_absent)
    return ScoreTable(
        averaging,
        overall,
        dict(zip(dict.fromkeys(s.ability for s in listed), abilities, strict=True)),
        _groups(present, averaging)[-1] if present else None,
        listed,
    )


def _groups(samples: Sequence[SampleScore], averaging: Averaging) -> list[GroupScore]:
    """Score every ability, in order of first appearance, and overall, last."""
    targets, abilities = (
        list(dict.fromkeys(names))
        for names in ([s.target for s in samples], [s.ability for s in samples])
    )
    target_S, ability_S = (
        _index([s.target for s in samples], targets),
        _index([s.ability for s in samples], abilities),
    )
    numerators_CGM, denominators_CGM = np.zeros((2, len(targets), len(abilities), len(Measure)))
    ratios_S2M = np.array([_ratios(sample, averaging) for sample in samples])
    np.add.at(numerators_CGM, (target_S, ability_S), ratios_S2M[:, 0])
    np.add.at(denominators_CGM, (target_S, ability_S), ratios_S2M[:, 1])

    def score(numerators_BGM: Floats, denominators_BGM: Floats) -> Floats:
        return _divide(numerators_BGM, denominators_BGM, averaging)

    mean_GM = score(numerators_CGM.sum(0, keepdims=True), denominators_CGM.sum(0, keepdims=True))[0]
    low_GM, high_GM = interval(numerators_CGM, denominators_CGM, score)
    members = [[s for s in samples if s.ability == name] for name in abilities]
    return [
        _group(*parts) for parts in zip([*members, samples], mean_GM, low_GM, high_GM, strict=True)
    ]


def _ratios(sample: SampleScore, averaging: Averaging) -> tuple[list[float], list[float]]:
    """Return what a sample adds to the numerator and the denominator of every measure."""
    # A sample of which nothing could be judged still weighs as much as one frame, so that it cannot
    # vanish.
    num_frames = max(sample.num_frames, 1)
    weight = num_frames if averaging is Averaging.FRAMES else 1
    j, f = sample.region, sample.boundary
    numerators = [
        weight * j,
        weight * f,
        weight * (j + f) / 2,
        num_frames * j,
        sample.common_px,
        sample.temporal,
    ]
    return numerators, [weight, weight, weight, num_frames, sample.either_px, 1]


def _divide(numerators_BGM: Floats, denominators_BGM: Floats, averaging: Averaging) -> Floats:
    """Return scores (B, G + 1, M) in per cent, overall last; NaN for a group without samples."""
    numerators, denominators = (
        np.concatenate([x, x.sum(1, keepdims=True)], axis=1)
        for x in (numerators_BGM, denominators_BGM)
    )
    is_there = denominators[:, :, [0]] > 0
    # Without a pixel in any mask truth and prediction agree; that is a score, other than the lack
    # of samples.
    scores = np.divide(
        numerators, denominators, out=np.ones_like(numerators), where=denominators > 0
    )
    scores[~np.broadcast_to(is_there, scores.shape)] = np.nan
    if averaging is Averaging.ABILITIES:
        scores[:, -1] = np.nanmean(scores[:, :-1], axis=1)
    return 100 * scores


def _group(
    samples: Sequence[SampleScore], mean_M: Floats, low_M: Floats, high_M: Floats
) -> GroupScore:
    has_interval = len({s.target for s in samples}) > 1
    estimates = [
        Estimate(
            float(mean), float(low) if has_interval else None, float(high) if has_interval else None
        )
        for mean, low, high in zip(mean_M, low_M, high_M, strict=True)
    ]
    return GroupScore(
        dict(zip(Measure, estimates, strict=True)),
        num_samples=len(samples),
        num_absent=sum(s.is_absent for s in samples),
        num_missing=sum(s.num_missing_frames > 0 for s in samples),
        num_missing_frames=sum(s.num_missing_frames for s in samples),
        num_broken=sum(bool(s.faults) for s in samples),
        num_broken_frames=sum(s.num_broken_frames for s in samples),
    )


def _index(names: Sequence[str], order: Sequence[str]) -> list[int]:
    position = {name: number for number, name in enumerate(order)}
    return [position[name] for name in names]


def _row(name: str, group: GroupScore) -> str:
    j, f, jf, *others = group.scores.values()
    around = "–" if jf.low is None else f"{jf.low:.1f}–{jf.high:.1f}"
    means = [f"{estimate.mean:.2f}" for estimate in (j, f, jf, *others)]
    counts = [str(group.num_missing), str(group.num_broken)]
    return (
        f"| {' | '.join([name, str(group.num_samples), *means[:3], around, *means[3:], *counts])} |"
    )
