"""Score folders of masks against folders of ground truth: what evaluation protocols share. What is
missing or broken counts 0.

Which frames count is decided by the ground truth alone, as in OK-VOS's own evaluator: every PNG of
a sample's mask folder. A frame for which the benchmark ships no PNG (target absent) is not judged;
an all-black PNG is, and an empty prediction is right there. Frames are judged in batches, in any
number of processes, a few batches ahead of the one that is awaited: memory does not grow with the
number of videos, nor with their length, and the result does not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from math import fsum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seg_common.errors import InfraError, UsageError
from seg_common.files import read_jsonl
from seg_common.worker_processes import start_worker
from seg_research.core.masks import Mask, read_mask
from seg_research.core.rle import decode_rle
from seg_research.metrics import (
    Averaging,
    Overlap,
    SampleScore,
    ScoreTable,
    aggregate,
    boundary_f,
    overlap,
    temporal_iou,
)

RLE_NAME = "masks.jsonl"
BATCH_FRAMES = 64
MIN_BATCHES_FOR_POOL = 8
"""Below this, starting processes takes longer than the scoring."""
MAX_NAMED_FAULTS = 3
"""Of one sample; the rest is counted."""


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """Where the ground truth of a sample lies: a folder with a PNG for every frame that counts."""

    sample_id: str
    mask_dir: Path
    ability: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames of one sample, judged together.

    Attributes:
        names: files of the ground truth.
        fault: why the sample has no ground truth to judge by; then there are no names.
        is_last: of its sample.
    """

    truth: MaskTruth
    masks_dir: Path
    names: tuple[str, ...]
    fault: str = ""
    is_last: bool = True


class FrameScore(NamedTuple):
    """One judged frame: J, F and the fields of `Overlap`; it counts 0 if it is `missing` or has a
    `fault`.
    """

    region: float = 0.0
    boundary: float = 0.0
    pixels: tuple[int, int, int, int] = (0, 0, 0, 0)
    missing: bool = False
    fault: str = ""


def score_masks(
    mapping: Sequence[MaskTruth],
    masks_dir: Path,
    num_workers: int = 1,
    *,
    averaging: Averaging = Averaging.SAMPLES,
    inner_frames: bool = False,
    on_sample: Callable[[SampleScore], None] = lambda _: None,
) -> ScoreTable:
    """Score `<masks_dir>/<id>/<stem>.png`, or `<masks_dir>/<id>/masks.jsonl`, for every sample of
    the mapping.

    A file that cannot be judged costs its frame, a folder of ground truth that is missing or empty
    its sample: they count 0 and are named in `SampleScore.faults`.

    Args:
        mapping: the samples that count; one without masks counts 0.
        masks_dir: as `seg-research segment` writes it.
        num_workers: processes; 1 works in this one.
        averaging: see `Averaging`.
        inner_frames: leave out the first and the last frame of every sample, as DAVIS does in its
            semi-supervised task.
        on_sample: called with every sample as it is scored, for progress.

    Raises:
        UsageError: there is no folder of masks, or none of ground truth.
        InfraError: a process was killed.
    """
    if not masks_dir.is_dir():
        raise UsageError(
            f"{masks_dir}: no such folder of masks; make it with: seg-research segment PREDICTIONS"
        )
    if not any(truth.mask_dir.is_dir() for truth in mapping):
        first = mapping[0]
        raise UsageError(
            f"{first.mask_dir}: no such ground-truth folder, nor any other; prepare the benchmark "
            "again on this machine"
        )
    samples: list[SampleScore] = []
    frames: list[FrameScore] = []
    for batch, scores in _judge_all(_batches(mapping, masks_dir, inner_frames), num_workers):
        frames += scores
        if batch.is_last:
            samples.append(_sample_score(batch, frames))
            on_sample(samples[-1])
            frames.clear()
    return aggregate(samples, averaging)


def _batches(mapping: Iterable[MaskTruth], masks_dir: Path, inner_frames: bool) -> Iterator[Batch]:
    for truth in mapping:
        try:
            names = sorted(
                path.name
                for path in truth.mask_dir.iterdir()
                if path.suffix == ".png" and not path.name.startswith(".")
            )
        except OSError as error:
            fault = (
                f"{truth.mask_dir}: no ground truth for {truth.sample_id} ({error.strerror}); "
                "prepare the benchmark again on this machine"
            )
            yield Batch(truth, masks_dir, (), fault)
            continue
        judged = names[1:-1] if inner_frames else names
        if not judged:
            found = f"{len(names)} PNGs, first and last left out" if inner_frames else "no PNG"
            fault = (
                f"{truth.mask_dir}: holds {found}; {truth.sample_id} needs ground truth on at "
                "least one frame"
            )
            yield Batch(truth, masks_dir, (), fault)
        for start in range(0, len(judged), BATCH_FRAMES):
            end = start + BATCH_FRAMES
            yield Batch(truth, masks_dir, tuple(judged[start:end]), is_last=end >= len(judged))


def _judge_all(
    batches: Iterator[Batch], num_workers: int
) -> Iterator[tuple[Batch, list[FrameScore]]]:
    """Judge batches; they come back in their order."""
    head = list(islice(batches, MIN_BATCHES_FOR_POOL))
    if num_workers <= 1 or len(head) < MIN_BATCHES_FOR_POOL:
        for batch in chain(head, batches):
            yield batch, judge(batch)
        return
    # Spawned, not forked: a fork would copy locks that threads of this process hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, start_worker) as pool:
        ahead: deque[tuple[Batch, Future[list[FrameScore]]]] = deque()
        try:
            for batch in chain(head, batches):
                ahead.append((batch, pool.submit(judge, batch)))
                if len(ahead) > 4 * num_workers:
                    done, future = ahead.popleft()
                    yield done, future.result()
            for done, future in ahead:
                yield done, future.result()
        except BrokenProcessPool:
            raise InfraError(
                "a scoring process was killed, perhaps for want of memory; run again with fewer "
                "--workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def judge(batch: Batch) -> list[FrameScore]:
    """Judge the frames of a batch, one after the other."""
    folder = batch.masks_dir / batch.truth.sample_id
    try:
        read_prediction = _prediction_reader(folder)
    except UsageError as error:
        return [FrameScore(fault=str(error)) for _ in batch.names]
    return [
        _judge_frame(batch.truth.mask_dir / name, folder / name, read_prediction)
        for name in batch.names
    ]


def _prediction_reader(folder: Path) -> Callable[[Path], Mask | None]:
    """Return what reads the mask of a frame, None if there is none, from the PNGs of a folder or
    from its run lengths.
    """
    lines = folder / RLE_NAME
    if not lines.is_file():
        return lambda path: read_mask(path) if path.is_file() else None
    if next(folder.glob("*.png"), None):
        raise UsageError(f"{folder}: holds PNGs and {RLE_NAME}; delete the older of the two")
    encoded = {str(row.get("frame")): row for row in read_jsonl(lines)}

    def read(path: Path) -> Mask | None:
        try:
            return decode_rle(encoded[path.stem]) if path.stem in encoded else None
        except UsageError as error:
            raise UsageError(f"{lines} frame {path.stem}: {error}") from None

    return read


def _judge_frame(
    truth_path: Path, prediction_path: Path, read_prediction: Callable[[Path], Mask | None]
) -> FrameScore:
    area_px = 0
    try:
        truth_HW = read_mask(truth_path)
        area_px = int(truth_HW.sum())
        prediction_HW = read_prediction(prediction_path)
    except UsageError as error:
        return FrameScore(pixels=(0, area_px, area_px, 0), fault=str(error))
    if prediction_HW is None:
        return FrameScore(pixels=(0, area_px, area_px, 0), missing=True)
    if truth_HW.shape != prediction_HW.shape:
        sizes = f"is {_size(prediction_HW)}, its ground truth {truth_path} is {_size(truth_HW)}"
        fault = f"{prediction_path}: {sizes}; masks must have the size of the video"
        return FrameScore(pixels=(0, area_px, area_px, 0), fault=fault)
    counts = overlap(truth_HW[None], prediction_HW[None])
    common, either, truth, prediction = (int(count[0]) for count in counts)
    return FrameScore(
        float(counts.iou[0]),
        float(boundary_f(truth_HW[None], prediction_HW[None])[0]),
        (common, either, truth, prediction),
    )


def _size(mask_HW: Mask) -> str:
    return f"{mask_HW.shape[1]}x{mask_HW.shape[0]}"


def _sample_score(batch: Batch, frames: Sequence[FrameScore]) -> SampleScore:
    num_frames, num_judged = (
        len(frames),
        sum(not (frame.missing or frame.fault) for frame in frames),
    )
    pixels = Overlap(*np.array([frame.pixels for frame in frames] or [(0, 0, 0, 0)], np.int64).T)
    return SampleScore(
        batch.truth.sample_id,
        batch.truth.ability,
        target=str(batch.truth.mask_dir),
        region=fsum(frame.region for frame in frames) / max(num_frames, 1),
        boundary=fsum(frame.boundary for frame in frames) / max(num_frames, 1),
        temporal=temporal_iou(pixels) if num_judged else 0.0,
        num_frames=num_frames,
        num_missing_frames=sum(frame.missing for frame in frames),
        num_broken_frames=sum(bool(frame.fault) for frame in frames),
        common_px=int(pixels.common.sum()),
        either_px=int(pixels.either.sum()),
        faults=_named_faults(batch, [frame.fault for frame in frames if frame.fault]),
    )


def _named_faults(batch: Batch, faults: Sequence[str]) -> tuple[str, ...]:
    if batch.fault:
        return (batch.fault,)
    rest = len(faults) - MAX_NAMED_FAULTS
    return (
        *faults[:MAX_NAMED_FAULTS],
        *([f"and {rest} more frames of {batch.truth.sample_id}"] if rest > 0 else []),
    )
