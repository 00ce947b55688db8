"""Predictions in, mask folders out: grouped by video, in parallel, resumable, one failure never taking the rest with it.

A line in `done.jsonl` says that all masks of one prediction are on the disk; it is written after them. Its digest covers everything the
masks depend on, so that a changed prediction or back-end is done again and an unchanged one is not.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from post_segmentation.prompts import mask_folder, read_prompts
from post_segmentation.propagator import Backend, FrameMasks, Propagator, make_propagator
from seg_research import __version__
from seg_research.core.errors import InfraError, UsageError
from seg_research.core.files import append_jsonl, read_jsonl, repair_jsonl
from seg_research.core.masks import write_mask
from seg_research.core.video import FramePosition, FrameSource, open_video
from seg_research.evaluation.predictions import Prediction, read_predictions

MANIFEST_NAME = "done.jsonl"
MAX_GROUP = 8
"""Predictions of one video that one task handles: enough to share the decoding, few enough to lose little when stopped."""


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How predictions become masks.

    Attributes:
        out: folder that receives `<id>/<stem>.png` and the manifest.
        vis: folder that receives `<id>.mp4`; None for no videos.
        num_workers: processes; 1 works in this one.
        overwrite: do everything again.
    """

    out: Path
    backend: Backend = Backend.GRABCUT
    vis: Path | None = None
    num_workers: int = 1
    overwrite: bool = False


class Status(StrEnum):
    """What became of one prediction."""

    MASKED = "masked"
    EMPTY = "empty"
    """Without a usable answer: its masks were written, all background."""
    KEPT = "kept"
    """Its masks were already there."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one prediction, and why where it failed."""

    sample_id: str
    status: Status
    num_frames: int = 0
    reason: str = ""


def read_rollout(path: Path, sample_idx: int) -> list[Prediction]:
    """Read the predictions of one rollout number, without the turns that masks do not need.

    Raises:
        UsageError: a line is no prediction, or the file has none of that number.
    """
    found = [replace(p, turns=(), extra={}) for p in read_predictions(path) if p.sample_idx == sample_idx]
    if not found:
        raise UsageError(f"{path}: holds no prediction with sample_idx {sample_idx}")
    return found


def segment(
    predictions: Sequence[Prediction], settings: SegmentSettings, on_outcome: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Write the masks of all predictions that lack them.

    Args:
        predictions: one rollout of each question.
        settings: back-end and folders.
        on_outcome: told of every prediction as it is settled, for progress.

    Raises:
        UsageError: the out folder cannot be used.
        InfraError: a worker process died.
    """
    manifest = settings.out / MANIFEST_NAME
    settled = {} if settings.overwrite else _read_manifest(manifest)
    outcomes: list[Outcome] = []
    waiting: list[Prediction] = []
    for prediction in predictions:
        early = _settle_early(prediction, settled, settings)
        if early is None:
            waiting.append(prediction)
        else:
            outcomes.append(early)
            on_outcome(early)
    digests = {prediction.sample_id: digest(prediction, settings.backend) for prediction in waiting}
    for batch in _run(_group_by_video(waiting), settings):
        for outcome in batch:
            if outcome.status is not Status.FAILED:
                manifest.parent.mkdir(parents=True, exist_ok=True)
                record = {"id": outcome.sample_id, "digest": digests[outcome.sample_id], "frames": outcome.num_frames}
                append_jsonl(manifest, record | {"status": outcome.status})
            outcomes.append(outcome)
            on_outcome(outcome)
    return outcomes


def digest(prediction: Prediction, backend: Backend) -> str:
    """Return a hash of all that the masks of a prediction depend on, apart from the pixels of the video."""
    record = prediction.to_json()
    relevant = {key: record[key] for key in ("video_path", "keyframe", "objects")}
    return hashlib.sha256(json.dumps([backend, __version__, relevant], sort_keys=True).encode()).hexdigest()[:16]


def _read_manifest(path: Path) -> Mapping[str, Mapping[str, Any]]:
    repair_jsonl(path)
    return {str(record.get("id")): record for record in read_jsonl(path)} if path.exists() else {}


def _settle_early(prediction: Prediction, settled: Mapping[str, Mapping[str, Any]], settings: SegmentSettings) -> Outcome | None:
    """Settle what needs no work: an unusable id, a prediction without a video, masks that are there already."""
    try:
        folder = mask_folder(settings.out, prediction.sample_id)
        if folder == settings.out / MANIFEST_NAME:
            raise UsageError(f"id {prediction.sample_id!r} is the name of the manifest")
    except UsageError as error:
        return Outcome(prediction.sample_id, Status.FAILED, reason=str(error))
    if prediction.video_path is None:
        return Outcome(prediction.sample_id, Status.FAILED, reason="the line names no video (video_path)")
    record = settled.get(prediction.sample_id)
    if record is None or record.get("digest") != digest(prediction, settings.backend):
        return None
    num_there = sum(1 for _ in folder.glob("*.png"))
    if num_there < record.get("frames", 1) or (settings.vis and not _overlay_path(settings.vis, prediction).exists()):
        return None
    return Outcome(prediction.sample_id, Status.KEPT, num_there)


def _group_by_video(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    by_video: defaultdict[Path | None, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_video[prediction.video_path].append(prediction)
    return [group[start : start + MAX_GROUP] for group in by_video.values() for start in range(0, len(group), MAX_GROUP)]


def _run(groups: Sequence[list[Prediction]], settings: SegmentSettings) -> Iterator[list[Outcome]]:
    num_workers = min(settings.num_workers, len(groups))
    if num_workers <= 1:
        yield from (segment_video(group, settings) for group in groups)
        return
    # Fresh processes: OpenCV and PyAV hold threads and locks that a fork would copy in an unknown state.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for finished in as_completed([pool.submit(segment_video, group, settings) for group in groups]):
            yield finished.result()
    except BrokenProcessPool:
        raise InfraError("a worker process was killed (out of memory?); run the same command with fewer --workers to go on") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def segment_video(predictions: Sequence[Prediction], settings: SegmentSettings) -> list[Outcome]:
    """Write the masks of predictions that share one video; a failure is an outcome."""
    video_path = predictions[0].video_path
    assert video_path is not None
    propagator = make_propagator(settings.backend)
    try:
        frames = open_video(video_path)
        propagator.open(frames)
    except UsageError as error:
        return [Outcome(prediction.sample_id, Status.FAILED, reason=str(error)) for prediction in predictions]
    outcomes: list[Outcome] = []
    for prediction in predictions:
        try:
            outcomes.append(_segment_one(prediction, frames, propagator, settings))
        except UsageError as error:
            outcomes.append(Outcome(prediction.sample_id, Status.FAILED, reason=str(error)))
    propagator.close()
    return outcomes


def _segment_one(prediction: Prediction, frames: FrameSource, propagator: Propagator, settings: SegmentSettings) -> Outcome:
    folder = mask_folder(settings.out, prediction.sample_id)
    prompts = read_prompts(prediction, frames)
    for prompt in prompts:
        propagator.prompt(prompt)
    for position, masks_NHW in propagator.propagate() if prompts else _empty_masks(frames):
        write_mask(folder / f"{frames.names[position]}.png", np.logical_or.reduce(masks_NHW))
    if settings.vis:
        from post_segmentation.overlay import write_overlay_video  # the encoder is needed for --vis alone

        write_overlay_video(_overlay_path(settings.vis, prediction), frames, folder, prompts)
    return Outcome(prediction.sample_id, Status.MASKED if prompts else Status.EMPTY, len(frames))


def _empty_masks(frames: FrameSource) -> Iterator[FrameMasks]:
    width_px, height_px = frames.size
    nothing_NHW = np.zeros((1, height_px, width_px), np.bool_)
    for position in range(len(frames)):
        yield FrameMasks(FramePosition(position), nothing_NHW)


def _overlay_path(vis: Path, prediction: Prediction) -> Path:
    folder = mask_folder(vis, prediction.sample_id)
    return folder.with_name(f"{folder.name}.mp4")
