"""Score folders of masks against ground truth: J and F of every frame that has a ground-truth PNG, missing masks as 0.

Which frames count is decided by the ground truth alone, as in the benchmark's own evaluator: every PNG of a sample's mask folder. A frame
for which the benchmark ships no PNG (target absent) is not judged; an all-black PNG is, and an empty prediction is right there.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from seg_research.core.errors import UsageError
from seg_research.core.masks import read_mask
from seg_research.metrics import SampleScore, ScoreTable, aggregate, boundary_f, jaccard

MIN_SAMPLES_FOR_POOL = 8
"""Below this, starting processes takes longer than the scoring."""


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """One entry of a meta mapping: where the ground truth of a sample lies."""

    sample_id: str
    mask_dir: Path
    ability: str


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
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: expected a non-empty list of [id, mask_dir, ability]")
    found: dict[str, MaskTruth] = {}
    for number, entry in enumerate(cast("list[object]", entries)):
        fields = cast("list[object]", entry) if isinstance(entry, list) else []
        if len(fields) != 3 or not all(isinstance(value, str) for value in fields):
            raise UsageError(f"{path} entry {number}: expected [id, mask_dir, ability] as three texts, found {str(entry)[:80]}")
        sample_id, mask_dir, ability = cast("list[str]", fields)
        if sample_id in found:
            raise UsageError(f"{path} entry {number}: id {sample_id!r} stands twice")
        found[sample_id] = MaskTruth(sample_id, Path(mask_dir), ability)
    return list(found.values())


def score_masks(
    mapping: Sequence[MaskTruth], masks_dir: Path, num_workers: int = 1, on_sample: Callable[[SampleScore], None] = lambda _: None
) -> ScoreTable:
    """Score `<masks_dir>/<id>/<stem>.png` for every sample of the mapping.

    Args:
        mapping: the samples that count; one without masks counts 0.
        masks_dir: as `seg-research segment` writes it.
        num_workers: processes; 1 works in this one.
        on_sample: told of every sample as it is scored, for progress.

    Raises:
        UsageError: a folder of ground truth is missing or empty, a mask cannot be read or has another size than its ground truth.
    """
    if not masks_dir.is_dir():
        raise UsageError(f"{masks_dir}: no such folder of masks; make it with: seg-research segment PREDICTIONS")
    scores: list[SampleScore] = []
    for score in _score_each([(truth, masks_dir) for truth in mapping], num_workers):
        scores.append(score)
        on_sample(score)
    return aggregate(scores)


def _score_each(tasks: Sequence[tuple[MaskTruth, Path]], num_workers: int) -> Iterator[SampleScore]:
    if num_workers <= 1 or len(tasks) < MIN_SAMPLES_FOR_POOL:
        yield from map(_score_task, tasks)
        return
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_score_task, tasks, chunksize=max(1, min(16, len(tasks) // (4 * num_workers))))
        except UsageError:
            pool.shutdown(cancel_futures=True)
            raise


def _score_task(task: tuple[MaskTruth, Path]) -> SampleScore:
    return score_sample(*task)


def score_sample(truth: MaskTruth, masks_dir: Path) -> SampleScore:
    """Score one sample; a frame without a predicted mask counts 0 for J and for F.

    Raises:
        UsageError: see `score_masks`.
    """
    if not truth.mask_dir.is_dir():
        raise UsageError(
            f"{truth.mask_dir}: no such ground-truth folder (sample {truth.sample_id}); prepare the benchmark again on this machine"
        )
    names = sorted(path.name for path in truth.mask_dir.iterdir() if path.suffix == ".png" and not path.name.startswith("."))
    if not names:
        raise UsageError(f"{truth.mask_dir}: holds no PNG (sample {truth.sample_id}); a sample needs ground truth on at least one frame")
    folder = masks_dir / truth.sample_id
    judged = [_score_frame(truth.mask_dir / name, folder / name) for name in names if (folder / name).is_file()]
    return SampleScore(
        truth.sample_id,
        truth.ability,
        region=_mean_with_zeros((j for j, _ in judged), len(names)),
        boundary=_mean_with_zeros((f for _, f in judged), len(names)),
        num_frames=len(names),
        num_missing_frames=len(names) - len(judged),
    )


def _score_frame(truth_path: Path, prediction_path: Path) -> tuple[float, float]:
    truth_HW, prediction_HW = read_mask(truth_path), read_mask(prediction_path)
    if truth_HW.shape != prediction_HW.shape:
        seen, expected = ("x".join(map(str, reversed(mask.shape))) for mask in (prediction_HW, truth_HW))
        raise UsageError(
            f"{prediction_path}: is {seen}, its ground truth {truth_path} is {expected}; masks must have the size of the video"
        )
    return float(jaccard(truth_HW[None], prediction_HW[None])[0]), float(boundary_f(truth_HW[None], prediction_HW[None])[0])


def _mean_with_zeros(values: Iterable[float], count: int) -> float:
    return sum(values) / count
