"""J (region), F (boundary) and J&F, overall and per ability, times 100, with 95 % intervals.

The protocol of OK-VOS, MeViS, ReasonVOS and others: frames are averaged within a question,
questions within an ability and overall; `averaging` names the other orders in use. Judged are the
frames for which the benchmark has a ground-truth PNG. A question or frame without a mask, or with a
mask that cannot be read, counts 0 and is counted beside the score. What the columns mean:
docs/metrics.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from seg_common.errors import UsageError
from seg_research.evaluation.protocol import EvaluationJob, EvaluationProtocol
from seg_research.evaluation.score_masks import MaskTruth, score_masks
from seg_research.metrics import Averaging, SampleScore, ScoreTable

NUM_NAMED = 5
"""Samples without any mask that are named; the rest is counted."""


@dataclass(frozen=True, slots=True)
class JfResult:
    """A table of scores with what has to be said beside it."""

    table: ScoreTable

    @property
    def num_broken(self) -> int:
        """Samples with a file that could not be judged."""
        return self.table.overall.num_broken

    def to_markdown(self) -> str:
        """Return one row an ability and one for all."""
        return self.table.to_markdown()

    def to_json(self) -> dict[str, Any]:
        """Return groups in per cent and samples in 0..1."""
        return self.table.to_json()

    def remarks(self) -> list[str]:
        """Say which samples lack masks, and what could not be judged."""
        overall = self.table.overall
        lines: list[str] = []
        if overall.num_missing:
            lines.append(
                f"missing: {overall.num_missing} of {overall.num_samples} samples lack masks "
                f"({overall.num_missing_frames} frames), {overall.num_absent} of them all masks; "
                "each counts 0"
            )
        lines += self._remarks_on_absent_samples()
        if overall.num_broken:
            lines.append(
                f"broken: {overall.num_broken} of {overall.num_samples} samples have files that "
                f"cannot be judged ({overall.num_broken_frames} frames); each counts 0"
            )
        return lines

    def _remarks_on_absent_samples(self) -> list[str]:
        names = [sample.sample_id for sample in self.table.samples if sample.is_absent]
        if not names:
            return []
        more = ["…"] * (len(names) > NUM_NAMED)
        lines = [f"without any mask: {', '.join(names[:NUM_NAMED] + more)}"]
        if present := self.table.present:
            j, f, jf, *_ = (estimate.mean for estimate in present.scores.values())
            lines.append(
                f"over the {present.num_samples} samples that have masks, as OK-VOS's own "
                f"evaluator counts: J {j:.2f}, F {f:.2f}, J&F {jf:.2f}"
            )
        return lines


def read_meta_mapping(path: Path) -> list[MaskTruth]:
    """Read `[[id, mask_dir, ability], …]`.

    Raises:
        UsageError: the file is missing or malformed, or an id stands twice; names the entry.
    """
    try:
        entries: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; preparing the benchmark writes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not readable as JSON ({error})") from None
    listed = cast("list[object]", entries) if isinstance(entries, list) else []
    if not listed:
        raise UsageError(f"{path}: expected a non-empty list of [id, mask_dir, ability]")
    found: dict[str, MaskTruth] = {}
    for number, entry in enumerate(listed):
        fields = cast("list[object]", entry) if isinstance(entry, list) else []
        if len(fields) != 3 or not all(isinstance(value, str) for value in fields):
            raise UsageError(
                f"{path} entry {number}: expected [id, mask_dir, ability] as three texts, found "
                f"{entry!s:.80}"
            )
        sample_id, mask_dir, ability = cast("list[str]", fields)
        if sample_id in found:
            raise UsageError(f"{path} entry {number}: id {sample_id!r} stands twice")
        found[sample_id] = MaskTruth(sample_id, Path(mask_dir), ability)
    return list(found.values())


def evaluate(job: EvaluationJob) -> JfResult:
    """Score the masks of every question of a meta mapping.

    Raises:
        UsageError: the mapping, or all masks or all ground truth are missing.
        InfraError: a process was killed.
    """
    mapping = read_meta_mapping(job.truth)

    def report(sample: SampleScore) -> None:
        job.on_sample(len(mapping), sample.faults)

    table = score_masks(
        mapping,
        job.masks_dir,
        job.num_workers,
        averaging=job.averaging or Averaging.SAMPLES,
        inner_frames=job.inner_frames,
        on_sample=report,
    )
    return JfResult(table)


SPEC = EvaluationProtocol("jf", evaluate, takes_choices=True)
