"""Masks of all predictions about one video, made together; a failure of one is its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from post_segmentation.backend import Backend
from post_segmentation.mask_writer import MaskFormat, MaskWriter
from post_segmentation.prompts import mask_folder, read_prompts
from post_segmentation.propagator import MaskPrompt, Propagator
from seg_common.errors import UsageError
from seg_research.core.prediction import PredictedObject
from seg_research.core.video import FramePosition, FrameSource, open_video


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How predictions become masks.

    Attributes:
        out: folder that receives the masks and the manifest.
        backend: makes the masks.
        vis: folder that receives `<id>.mp4`; None for no videos.
        mask_format: of the files in `out`.
        num_workers: processes; 1 works in this one.
        num_gpus: that the processes share; 0 leaves the device to the back-end.
        overwrite: do everything again.
    """

    out: Path
    backend: Backend
    vis: Path | None = None
    mask_format: MaskFormat = MaskFormat.PNG
    num_workers: int = 1
    num_gpus: int = 0
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class MaskRequest:
    """What is needed of one prediction to make its masks.

    Attributes:
        video_path: None where the line does not name its video.
        objects: to follow; none gives empty masks.
    """

    sample_id: str
    video_path: Path | None
    objects: tuple[PredictedObject, ...] = ()


class Status(StrEnum):
    """What became of one prediction."""

    MASKED = "masked"
    EMPTY = "empty"
    """Without a usable answer: its masks were written, all background."""
    KEPT = "kept"
    """Its masks were already there."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MaskOutcome:
    """What became of one prediction, and why where it failed."""

    sample_id: str
    status: Status
    num_frames: int = 0
    reason: str = ""


def segment_video(requests: Sequence[MaskRequest], settings: SegmentSettings) -> list[MaskOutcome]:
    """Write the masks of predictions that share one video; a failure is an outcome.

    Raises:
        UsageError: the back-end cannot be made.
    """
    video_path = requests[0].video_path
    assert video_path is not None
    try:
        frames = open_video(video_path)
        jobs = [
            _MaskJob(request, group_id, frames, settings)
            for group_id, request in enumerate(requests)
        ]
        _fill_empty([job for job in jobs if not job.prompts], frames)
    except UsageError as error:
        return lost_group(requests, str(error))
    prompted = [job for job in jobs if job.prompts]
    if prompted:
        propagator = build_once(settings.backend)
        try:
            _propagate(propagator, frames, prompted)
        except UsageError as error:
            for job in prompted:
                job.failure = job.failure or str(error)
        finally:
            propagator.close()
    return [job.settle() for job in jobs]


def lost_group(requests: Sequence[MaskRequest], reason: str) -> list[MaskOutcome]:
    """Return the outcomes of predictions none of which could be begun or finished."""
    return [MaskOutcome(request.sample_id, Status.FAILED, reason=reason) for request in requests]


def overlay_path(vis: Path, sample_id: str) -> Path:
    """Return where the overlay video of a prediction lies."""
    folder = mask_folder(vis, sample_id)
    return folder.with_name(f"{folder.name}.mp4")


@lru_cache(maxsize=1)
def build_once(backend: Backend) -> Propagator:
    """Make the back-end once a process: weights take longer to load than many a video takes to
    segment.
    """
    return backend.build()


class _MaskJob:
    """One prediction on its way: its prompts, its masks, and what went wrong if something did."""

    def __init__(
        self, request: MaskRequest, group_id: int, frames: FrameSource, settings: SegmentSettings
    ) -> None:
        self.sample_id, self.failure = request.sample_id, ""
        self.prompts: tuple[MaskPrompt, ...] = ()
        self._frames, self._vis = frames, settings.vis
        self._attempt(lambda: self._read(request, group_id, settings.backend))
        self._writer = MaskWriter(
            settings.out,
            self.sample_id,
            frames.names,
            settings.mask_format,
            num_objects=max(1, len(self.prompts)),
            keep_objects=settings.vis is not None,
        )

    def add(
        self, position: FramePosition, numbers: Sequence[int], masks_NHW: NDArray[np.bool_]
    ) -> None:
        self._attempt(lambda: self._writer.add(position, masks_NHW, numbers))

    def settle(self) -> MaskOutcome:
        """Put the masks in their place, or leave nothing."""
        self._attempt(self._finish)
        self._writer.close()
        if self.failure:
            return MaskOutcome(self.sample_id, Status.FAILED, reason=self.failure)
        status = Status.MASKED if self.prompts else Status.EMPTY
        return MaskOutcome(self.sample_id, status, len(self._frames))

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do a step unless one before failed."""
        if self.failure:
            return
        try:
            step()
        except UsageError as error:
            self.failure = str(error)

    def _read(self, request: MaskRequest, group_id: int, backend: Backend) -> None:
        prompts = read_prompts(request.objects, self._frames, backend.spec.prompts)
        self.prompts = tuple(replace(prompt, group_id=group_id) for prompt in prompts)

    def _finish(self) -> None:
        self._writer.commit()
        if self._vis is not None:
            # The encoder is needed for overlay videos alone.
            from post_segmentation.overlay import write_overlay_video

            write_overlay_video(
                overlay_path(self._vis, self.sample_id),
                self._frames,
                self._writer.objects,
                self.prompts,
            )


def _propagate(propagator: Propagator, frames: FrameSource, jobs: Sequence[_MaskJob]) -> None:
    """Follow the objects of all jobs together, and give each its own."""
    propagator.open(frames)
    owners: list[tuple[_MaskJob, int]] = []
    for job in jobs:
        for number, prompt in enumerate(job.prompts):
            propagator.prompt(prompt)
            owners.append((job, number))
    everything = tuple(range(len(owners)))
    for masks in propagator.propagate():
        rows: defaultdict[_MaskJob, list[int]] = defaultdict(list)
        numbers: defaultdict[_MaskJob, list[int]] = defaultdict(list)
        for row, object_id in enumerate(everything if masks.objects is None else masks.objects):
            job, number = owners[object_id]
            rows[job].append(row)
            numbers[job].append(number)
        for job, own in rows.items():
            job.add(masks.position, numbers[job], masks.masks_NHW[own])


def _fill_empty(jobs: Sequence[_MaskJob], frames: FrameSource) -> None:
    width_px, height_px = frames.size
    nothing_NHW = np.zeros((1, height_px, width_px), np.bool_)
    for job in jobs:
        for position in range(len(frames)):
            job.add(FramePosition(position), (0,), nothing_NHW)
