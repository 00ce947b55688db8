"""From frames to a table, in one stated order: frames are averaged within a sample, samples within an ability and over all.

Overall is the mean over samples, not over abilities. What is missing counts as 0 and is counted aloud.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True, slots=True)
class SampleScore:
    """Score of one question.

    Attributes:
        region: mean J over the frames that have ground truth, in [0, 1].
        boundary: mean F over the same frames, in [0, 1].
        num_frames: frames averaged over.
        num_missing_frames: those among them without a predicted mask; each went into the means as 0.
    """

    sample_id: str
    ability: str
    region: float
    boundary: float
    num_frames: int
    num_missing_frames: int = 0

    @property
    def region_and_boundary(self) -> float:
        """J&F of the sample, in [0, 1]."""
        return (self.region + self.boundary) / 2


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Means over the samples of a group, times 100; every sample weighs the same, however many frames it has.

    Attributes:
        num_missing: samples that lack at least one mask.
        num_missing_frames: masks they lack altogether.
    """

    region: float
    boundary: float
    num_samples: int
    num_missing: int
    num_missing_frames: int

    @property
    def region_and_boundary(self) -> float:
        """J&F, times 100: the mean of the group's J and F, which equals the mean of the samples' J&F."""
        return (self.region + self.boundary) / 2

    def to_json(self) -> dict[str, float | int]:
        """Return the group's entry in a result file."""
        return {
            "J": self.region,
            "F": self.boundary,
            "JF": self.region_and_boundary,
            "n": self.num_samples,
            "missing": self.num_missing,
            "missing_frames": self.num_missing_frames,
        }


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of a whole benchmark, overall, per ability and per sample."""

    overall: GroupScore
    ability: Mapping[str, GroupScore]
    samples: tuple[SampleScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result file: groups in percent, samples as [J, F, ability] in 0..1, as the original's `result.json` has them."""
        return {
            "overall": self.overall.to_json(),
            "ability": {name: group.to_json() for name, group in self.ability.items()},
            "samples": {s.sample_id: [s.region, s.boundary, s.ability] for s in self.samples},
        }

    def to_markdown(self) -> str:
        """Return a table with one row an ability and one for all."""
        lines = ["| ability | samples | J | F | J&F | missing |", "|---|---:|---:|---:|---:|---:|"]
        for name, group in [*self.ability.items(), ("overall", self.overall)]:
            numbers = f"{group.region:.2f} | {group.boundary:.2f} | {group.region_and_boundary:.2f}"
            lines.append(f"| {name} | {group.num_samples} | {numbers} | {group.num_missing} |")
        return "\n".join(lines) + "\n"


def aggregate(samples: Iterable[SampleScore]) -> ScoreTable:
    """Average samples per ability (in order of first appearance) and over all.

    Raises:
        ValueError: there is no sample.
    """
    listed = tuple(samples)
    if not listed:
        raise ValueError("no samples to average")
    groups: defaultdict[str, list[SampleScore]] = defaultdict(list)
    for sample in listed:
        groups[sample.ability].append(sample)
    return ScoreTable(_mean(listed), {name: _mean(group) for name, group in groups.items()}, listed)


def _mean(samples: Sequence[SampleScore]) -> GroupScore:
    return GroupScore(
        region=100 * fmean(s.region for s in samples),
        boundary=100 * fmean(s.boundary for s in samples),
        num_samples=len(samples),
        num_missing=sum(s.num_missing_frames > 0 for s in samples),
        num_missing_frames=sum(s.num_missing_frames for s in samples),
    )
