"""Predictions in, masks out: grouped by video, in parallel, resumable, one failure never taking the
rest with it.

All questions about a video go through its back-end together. A line in `done.jsonl` says that all
masks of one prediction are on the disk; it is written after them. Its digest covers everything the
masks depend on, so that a changed prediction or back-end is done again and an unchanged one is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from post_segmentation.mask_writer import STAGING_NAME, MaskFormat, MaskWriter, is_complete
from post_segmentation.process_pool import in_processes
from post_segmentation.prompts import mask_folder, read_prompts
from post_segmentation.propagator import Engine, MaskPrompt, Propagator, identify, make_propagator
from seg_common.errors import UsageError
from seg_common.files import append_jsonl, read_jsonl, repair_jsonl, write_atomic
from seg_research import __version__
from seg_research.core.video import FramePosition, FrameSource, open_video
from seg_research.records.reader import Prediction, read_predictions

MANIFEST_NAME = "done.jsonl"
MAX_GROUP, MAX_SHARING_GROUP = 8, 32
"""Predictions of one video that one task handles: enough to share the work, few enough to lose
little when stopped.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How predictions become masks.

    Attributes:
        out: folder that receives the masks and the manifest.
        engine: makes the masks.
        vis: folder that receives `<id>.mp4`; None for no videos.
        mask_format: of the files in `out`.
        num_workers: processes; 1 works in this one.
        num_gpus: that the processes share; 0 leaves the device to the engine.
        overwrite: do everything again.
    """

    out: Path
    engine: Engine
    vis: Path | None = None
    mask_format: MaskFormat = MaskFormat.PNG
    num_workers: int = 1
    num_gpus: int = 0
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


Group = list[Prediction]
"""Predictions of one video."""


class FanOut(Protocol):
    """Runs a function on groups somewhere, and gives results as they come."""

    def __call__(
        self, function: Callable[[Group], list[Outcome]], groups: Sequence[Group]
    ) -> Iterator[list[Outcome]]:
        """Run it."""
        ...


def read_rollout(path: Path, sample_idx: int) -> tuple[list[Prediction], list[Outcome]]:
    """Read the predictions of one rollout number, without the turns that masks do not need; and the
    failures of lines that are none.

    Raises:
        UsageError: a line is not JSON, or the file has no prediction of that number.
    """
    refused: list[Outcome] = []

    def refuse(row: Mapping[str, Any], reason: str) -> None:
        if row.get("sample_idx", 0) == sample_idx:
            refused.append(Outcome(str(row.get("id")), Status.FAILED, reason=reason))

    found = [
        replace(p, turns=(), extra={})
        for p in read_predictions(path, refuse)
        if p.sample_idx == sample_idx
    ]
    if not found:
        raise UsageError(
            refused[0].reason
            if refused
            else f"{path}: holds no prediction with sample_idx {sample_idx}"
        )
    return found, refused


def segment(
    predictions: Sequence[Prediction],
    settings: SegmentSettings,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
    fan_out: FanOut | None = None,
) -> list[Outcome]:
    """Write the masks of all predictions that lack them.

    Args:
        predictions: one rollout of each question.
        settings: engine and folders.
        on_outcome: told of every prediction as it is settled, for progress.
        fan_out: where the work is done; None: in processes of this machine.

    Raises:
        UsageError: the out folder cannot be used, or the engine cannot be made.
        InfraError: a worker process died.
    """
    manifest = settings.out / MANIFEST_NAME
    engine_id = identify(settings.engine)
    settled = {} if settings.overwrite else _read_manifest(manifest)
    # Finds out now whether the folder can be written to.
    write_atomic(manifest, manifest.read_bytes() if manifest.exists() else b"")
    outcomes: list[Outcome] = []
    digests: dict[str, str] = {}
    waiting: list[Prediction] = []

    def settle(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    for prediction in predictions:
        digests[prediction.sample_id] = digest(prediction, engine_id, settings.mask_format)
        early = _settle_early(
            prediction,
            settled.get(prediction.sample_id, {}),
            digests[prediction.sample_id],
            settings,
        )
        if early is None:
            waiting.append(prediction)
        else:
            settle(early)
    run = fan_out or partial(
        in_processes, num_workers=settings.num_workers, num_gpus=settings.num_gpus
    )
    for batch in run(
        partial(segment_video, settings=settings), _group_by_video(waiting, settings.engine)
    ):
        for outcome in batch:
            if outcome.status is not Status.FAILED:
                record = {
                    "id": outcome.sample_id,
                    "digest": digests[outcome.sample_id],
                    "frames": outcome.num_frames,
                }
                append_jsonl(manifest, record | {"status": outcome.status})
            settle(outcome)
    _remove_if_empty(settings.out / STAGING_NAME)
    return outcomes


def digest(prediction: Prediction, engine_id: str, mask_format: MaskFormat) -> str:
    """Return a hash of all that the masks of a prediction depend on, apart from the pixels of the
    video.
    """
    record = prediction.to_json()
    relevant = {key: record[key] for key in ("video_path", "keyframe", "objects")}
    return hashlib.sha256(
        json.dumps([engine_id, mask_format, __version__, relevant], sort_keys=True).encode()
    ).hexdigest()[:16]


def _read_manifest(path: Path) -> Mapping[str, Mapping[str, Any]]:
    repair_jsonl(path)
    return {str(record.get("id")): record for record in read_jsonl(path)} if path.exists() else {}


def _settle_early(
    prediction: Prediction, record: Mapping[str, Any], wanted: str, settings: SegmentSettings
) -> Outcome | None:
    """Settle what needs no work: an unusable id, a prediction without a video, masks that are there
    already.
    """
    sample_id = prediction.sample_id
    try:
        folder = mask_folder(settings.out, sample_id)
        if folder == settings.out / MANIFEST_NAME:
            raise UsageError(f"id {sample_id!r} is the name of the manifest")
    except UsageError as error:
        return Outcome(sample_id, Status.FAILED, reason=str(error))
    if prediction.video_path is None:
        return Outcome(sample_id, Status.FAILED, reason="the line names no video (video_path)")
    if record.get("digest") != wanted or not is_complete(
        settings.out, sample_id, record.get("frames", 1), settings.mask_format
    ):
        return None
    if settings.vis and not _overlay_path(settings.vis, sample_id).exists():
        return None
    return Outcome(sample_id, Status.KEPT, record.get("frames", 0))


def _group_by_video(predictions: Sequence[Prediction], engine: Engine) -> list[Group]:
    by_video: defaultdict[Path | None, Group] = defaultdict(list)
    for prediction in predictions:
        by_video[prediction.video_path].append(prediction)
    size = MAX_SHARING_GROUP if engine.shares_work else MAX_GROUP
    return [
        group[start : start + size]
        for group in by_video.values()
        for start in range(0, len(group), size)
    ]


@lru_cache(maxsize=1)
def _engine_of_process(engine: Engine) -> Propagator:
    """Make the engine once a process: weights take longer to load than many a video takes to
    segment.
    """
    return make_propagator(engine)


class _Question:
    """One prediction on its way: its prompts, its masks, and what went wrong if something did."""

    def __init__(
        self, prediction: Prediction, number: int, frames: FrameSource, settings: SegmentSettings
    ) -> None:
        self.sample_id, self.failure = prediction.sample_id, ""
        self.prompts: tuple[MaskPrompt, ...] = ()
        self._frames, self._vis = frames, settings.vis
        self._writer = MaskWriter(
            settings.out,
            self.sample_id,
            frames.names,
            settings.mask_format,
            keep_objects=settings.vis is not None,
        )
        self._attempt(lambda: self._read(prediction, number))

    def add(self, position: FramePosition, masks_NHW: NDArray[np.bool_]) -> None:
        self._attempt(lambda: self._writer.add(position, masks_NHW))

    def settle(self) -> Outcome:
        """Put the masks in their place, or leave nothing."""
        self._attempt(self._finish)
        self._writer.close()
        if self.failure:
            return Outcome(self.sample_id, Status.FAILED, reason=self.failure)
        return Outcome(
            self.sample_id, Status.MASKED if self.prompts else Status.EMPTY, len(self._frames)
        )

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do a step unless one before failed."""
        if self.failure:
            return
        try:
            step()
        except UsageError as error:
            self.failure = str(error)

    def _read(self, prediction: Prediction, number: int) -> None:
        self.prompts = tuple(
            replace(prompt, question=number) for prompt in read_prompts(prediction, self._frames)
        )

    def _finish(self) -> None:
        self._writer.commit()
        if self._vis is not None:
            # the encoder is needed for --vis alone
            from post_segmentation.overlay import write_overlay_video

            num_objects = max(1, len(self.prompts))
            read_masks = partial(self._writer.objects, num_objects=num_objects)
            write_overlay_video(
                _overlay_path(self._vis, self.sample_id), self._frames, read_masks, self.prompts
            )


def segment_video(predictions: Sequence[Prediction], settings: SegmentSettings) -> list[Outcome]:
    """Write the masks of predictions that share one video; a failure is an outcome.

    Raises:
        UsageError: the engine cannot be made.
    """
    video_path = predictions[0].video_path
    assert video_path is not None
    try:
        frames = open_video(video_path)
        questions = [
            _Question(prediction, number, frames, settings)
            for number, prediction in enumerate(predictions)
        ]
        _fill_empty([question for question in questions if not question.prompts], frames)
    except UsageError as error:
        return lost_group(predictions, str(error))
    asked = [question for question in questions if question.prompts]
    if asked:
        propagator = _engine_of_process(settings.engine)
        try:
            _propagate(propagator, frames, asked)
        except UsageError as error:
            for question in asked:
                question.failure = question.failure or str(error)
        finally:
            propagator.close()
    return [question.settle() for question in questions]


def lost_group(group: Sequence[Prediction], reason: str) -> list[Outcome]:
    """Return the outcomes of predictions none of which could be begun or finished."""
    return [Outcome(prediction.sample_id, Status.FAILED, reason=reason) for prediction in group]


def _propagate(propagator: Propagator, frames: FrameSource, questions: Sequence[_Question]) -> None:
    """Follow the objects of all questions together, and give each its own."""
    propagator.open(frames)
    owners: list[_Question] = []
    for question in questions:
        for prompt in question.prompts:
            propagator.prompt(prompt)
            owners.append(question)
    everything = tuple(range(len(owners)))
    for masks in propagator.propagate():
        rows: defaultdict[_Question, list[int]] = defaultdict(list)
        for row, number in enumerate(everything if masks.objects is None else masks.objects):
            rows[owners[number]].append(row)
        for question, own in rows.items():
            question.add(masks.position, masks.masks_NHW[own])


def _fill_empty(questions: Sequence[_Question], frames: FrameSource) -> None:
    width_px, height_px = frames.size
    nothing_NHW = np.zeros((1, height_px, width_px), np.bool_)
    for question in questions:
        for position in range(len(frames)):
            question.add(FramePosition(position), nothing_NHW)


def _overlay_path(vis: Path, sample_id: str) -> Path:
    folder = mask_folder(vis, sample_id)
    return folder.with_name(f"{folder.name}.mp4")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        logger.debug("%s is not there or still holds something", folder)
