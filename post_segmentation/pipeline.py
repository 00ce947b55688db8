"""Predictions in, masks out: grouped by video, in parallel, resumable, one failure never taking the
rest with it.

All predictions of a video go through its back-end together. A line in `done.jsonl` says that all
masks of one prediction are on the disk; it is written after them. Its digest covers everything the
masks depend on, so that a changed prediction or back-end is done again and an unchanged one is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from post_segmentation.backend import Backend
from post_segmentation.mask_writer import STAGING_NAME, MaskFormat, is_complete
from post_segmentation.process_pool import in_processes
from post_segmentation.prompts import count_unused, mask_folder
from post_segmentation.segment_video import (
    MaskOutcome,
    MaskRequest,
    SegmentSettings,
    Status,
    overlay_path,
    segment_video,
)
from seg_common.errors import UsageError
from seg_common.files import append_jsonl, read_jsonl, repair_jsonl, write_atomic
from seg_research import __version__
from seg_research.records.reader import read_predictions
from seg_research.records.schema import PredictionRow, object_to_json

MANIFEST_NAME = "done.jsonl"
MAX_GROUP, MAX_SHARING_GROUP = 8, 32
"""Predictions of one video that one task handles: enough to share the work, few enough to lose
little when stopped.
"""

logger = logging.getLogger(__name__)

Group = list[MaskRequest]
"""Predictions of one video."""


class FanOut(Protocol):
    """Runs a function on groups somewhere, and gives results as they come."""

    def __call__(
        self, function: Callable[[Group], list[MaskOutcome]], groups: Sequence[Group]
    ) -> Iterator[list[MaskOutcome]]:
        """Run it."""
        ...


def read_rollout(path: Path, sample_idx: int) -> tuple[list[MaskRequest], list[MaskOutcome]]:
    """Read what masks need of the predictions of one rollout number; and the failures of lines that
    are no predictions.

    Raises:
        UsageError: a line is not JSON, or the file has no prediction of that number.
    """
    refused: list[MaskOutcome] = []

    def refuse(row: Mapping[str, Any], reason: str) -> None:
        if row.get("sample_idx", 0) == sample_idx:
            refused.append(MaskOutcome(str(row.get("id")), Status.FAILED, reason=reason))

    found = [
        request_of(row) for row in read_predictions(path, refuse) if row.sample_idx == sample_idx
    ]
    if not found:
        raise UsageError(
            refused[0].reason
            if refused
            else f"{path}: holds no prediction with sample_idx {sample_idx}"
        )
    return found, refused


def request_of(row: PredictionRow) -> MaskRequest:
    """Return what masks need of a recorded prediction."""
    return MaskRequest(row.sample_id, row.video_path, row.prediction.objects)


def segment(
    requests: Sequence[MaskRequest],
    settings: SegmentSettings,
    on_outcome: Callable[[MaskOutcome], None] = lambda _: None,
    fan_out: FanOut | None = None,
) -> list[MaskOutcome]:
    """Write the masks of all predictions that lack them.

    Args:
        requests: one rollout of each question.
        settings: back-end and folders.
        on_outcome: told of every prediction as it is settled, for progress.
        fan_out: where the work is done; None: in processes of this machine.

    Raises:
        UsageError: the out folder cannot be used, or the back-end cannot be made.
        InfraError: a worker process died.
    """
    manifest = settings.out / MANIFEST_NAME
    identity = settings.backend.identity()
    settled: Mapping[str, Mapping[str, Any]] = (
        {} if settings.overwrite else _read_manifest(manifest)
    )
    # Finds out now whether the folder can be written to.
    write_atomic(manifest, manifest.read_bytes() if manifest.exists() else b"")
    digests = {r.sample_id: digest(r, identity, settings.mask_format) for r in requests}
    outcomes: list[MaskOutcome] = []
    waiting: list[MaskRequest] = []

    def settle(outcome: MaskOutcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    for request in requests:
        record: Mapping[str, Any] = settled.get(request.sample_id, {})
        early = _settle_early(request, record, digests[request.sample_id], settings)
        if early is None:
            waiting.append(request)
        else:
            settle(early)
    _warn_of_unused(waiting, settings.backend)
    run = fan_out or partial(
        in_processes, num_workers=settings.num_workers, num_gpus=settings.num_gpus
    )
    groups = _group_by_video(waiting, settings.backend)
    for outcome in chain.from_iterable(run(partial(segment_video, settings=settings), groups)):
        if outcome.status is not Status.FAILED:
            append_jsonl(manifest, _manifest_line(outcome, digests[outcome.sample_id]))
        settle(outcome)
    _remove_if_empty(settings.out / STAGING_NAME)
    return outcomes


def digest(request: MaskRequest, identity: str, mask_format: MaskFormat) -> str:
    """Return a hash of all that the masks of a prediction depend on, apart from the pixels of the
    video.
    """
    relevant = [
        identity,
        mask_format,
        __version__,
        str(request.video_path),
        [object_to_json(found) for found in request.objects],
    ]
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def _manifest_line(outcome: MaskOutcome, wanted: str) -> dict[str, Any]:
    return {
        "id": outcome.sample_id,
        "digest": wanted,
        "frames": outcome.num_frames,
        "status": outcome.status,
    }


def _read_manifest(path: Path) -> Mapping[str, Mapping[str, Any]]:
    repair_jsonl(path)
    return {str(record.get("id")): record for record in read_jsonl(path)} if path.exists() else {}


def _settle_early(
    request: MaskRequest, record: Mapping[str, Any], wanted: str, settings: SegmentSettings
) -> MaskOutcome | None:
    """Settle what needs no work: an unusable id, a prediction without a video, masks that are there
    already.
    """
    sample_id = request.sample_id
    try:
        folder = mask_folder(settings.out, sample_id)
        if folder == settings.out / MANIFEST_NAME:
            raise UsageError(f"id {sample_id!r} is the name of the manifest")
    except UsageError as error:
        return MaskOutcome(sample_id, Status.FAILED, reason=str(error))
    if request.video_path is None:
        reason = "the line names no video (video_path)"
        return MaskOutcome(sample_id, Status.FAILED, reason=reason)
    if record.get("digest") != wanted or not is_complete(
        settings.out, sample_id, record.get("frames", 1), settings.mask_format
    ):
        return None
    if settings.vis and not overlay_path(settings.vis, sample_id).exists():
        return None
    return MaskOutcome(sample_id, Status.KEPT, record.get("frames", 0))


def _warn_of_unused(requests: Sequence[MaskRequest], backend: Backend) -> None:
    """Say once what the back-end leaves out of account."""
    objects = [found for request in requests for found in request.objects]
    for kind, count in sorted(count_unused(objects, backend.spec.prompts).items()):
        logger.warning(
            "back-end %s makes no use of %s; %d of %d objects have some",
            backend.name,
            kind,
            count,
            len(objects),
        )


def _group_by_video(requests: Sequence[MaskRequest], backend: Backend) -> list[Group]:
    by_video: defaultdict[Path | None, Group] = defaultdict(list)
    for request in requests:
        by_video[request.video_path].append(request)
    size = MAX_SHARING_GROUP if backend.spec.shares_work else MAX_GROUP
    groups: list[Group] = []
    for group in by_video.values():
        groups.extend(group[start : start + size] for start in range(0, len(group), size))
    return groups


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        logger.debug("%s is not there or still holds something", folder)
