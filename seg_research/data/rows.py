"""Prepared rows, as verl's data sets read them, and back into samples.

A row's boxes and points are thousandths of the frame, unless `extra_info.coordinates` says that
they are pixels of the resized frame (the convention of Qwen2.5-VL); samples hold thousandths
always. Every complaint names file and row, the first row being row 0.

The file's version stands in the metadata of its schema; files of before there were versions, and
those that the authors of Seg-ReSearch prepare, have none and are version 1: one target, offered
frames alone. Columns that a reader does not know are left alone, as data sets carry their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FrameId, frame_id_of
from seg_research.data.parquet import make_schema, read_parquet, write_parquet
from seg_research.data.sample import Frame, FrameRole, GroundTruth, Sample
from seg_research.data.truth_json import THOUSANDTHS, first_fault, read_targets

VERSION = 2
_VERSION_KEY = "seg_research.rows"
_SHOWN_MISSING = 3


class Coordinates(StrEnum):
    """What the numbers of a row's ground truth count."""

    NORM1000 = "norm1000"
    RESIZED_PIXELS = "resized_pixels"


PREPARED_SCHEMA = make_schema(
    {
        "data_source": str,
        "images": [{"image": str, "resized_height": int, "resized_width": int, "role": str}],
        "ability": str,
        "id": str,
        "video_path": str,
        "question": str,
        "reward_model": {
            "ground_truth": str,
            "steps": [str],
            "absent": bool,
            "difficulty": float,
        },
        "extra_info": {
            "split": str,
            "index": int,
            "height": int,
            "width": int,
            "coordinates": str,
        },
    },
    metadata={_VERSION_KEY: str(VERSION)},
)


class _Image(BaseModel):
    image: str
    resized_height: int
    resized_width: int
    role: FrameRole | None = None


class _RewardModel(BaseModel):
    ground_truth: str
    steps: list[str] | None = None
    absent: bool | None = None
    difficulty: float | None = Field(None, ge=0, le=1)


class _ExtraInfo(BaseModel):
    coordinates: Coordinates | None = None


class _PreparedRow(BaseModel):
    """The columns a sample is made of; others may stand beside them."""

    model_config = ConfigDict(extra="ignore")

    data_source: str
    images: list[_Image]
    ability: str
    id: str
    video_path: str
    question: str
    reward_model: _RewardModel
    extra_info: _ExtraInfo


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write prepared rows, atomically; equal rows give equal bytes."""
    write_parquet(path, rows, PREPARED_SCHEMA)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read prepared rows as they stand in the file.

    Raises:
        UsageError: the file is missing, not readable as parquet, or of a newer version than this.
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; make it with: seg-research data NAME --root {path.parent}"
        )
    rows, metadata = read_parquet(path)
    version = metadata.get(_VERSION_KEY, "1")
    if not version.isdigit() or not 1 <= int(version) <= VERSION:
        raise UsageError(
            f"{path}: prepared rows of version {version}, but this program reads up to version "
            f"{VERSION}; update seg_research, or prepare the data again with this version"
        )
    return rows


def read_samples(path: Path) -> list[Sample]:
    """Read prepared rows as samples. Whether the files they name exist is another question
    (`check_paths`).

    Raises:
        UsageError: the file or a row is not what `seg-research data NAME` writes, or a sample id
            comes twice; names the row.
    """
    samples = [sample_of(row, f"{path} row {number}") for number, row in enumerate(read_rows(path))]
    first_row: dict[str, int] = {}
    for number, sample in enumerate(samples):
        earlier = first_row.setdefault(sample.sample_id, number)
        if earlier != number:
            raise UsageError(
                f"{path} row {number}: id {sample.sample_id!r} was used by row {earlier} already; "
                "ids must differ"
            )
    return samples


def sample_of(row: Mapping[str, Any], where: str) -> Sample:
    """Turn one prepared row into a sample; `where` begins every complaint.

    Raises:
        UsageError: a column is missing, of the wrong type or out of range.
    """
    try:
        parsed = _PreparedRow.model_validate(row)
    except ValidationError as error:
        raise UsageError(
            f"{where}: {first_fault(error)}; prepare it again with: seg-research data NAME"
        ) from None
    if not parsed.images:
        raise UsageError(
            f"{where}: no frames in `images`; prepare it again with: seg-research data NAME"
        )
    frames = tuple(_frame(image, where) for image in parsed.images)
    return Sample(
        sample_id=parsed.id,
        question=parsed.question,
        video_path=Path(parsed.video_path),
        frames=frames,
        ability=parsed.ability,
        data_source=parsed.data_source,
        truth=_ground_truth(parsed, frames, where),
    )


def check_paths(samples: Sequence[Sample]) -> None:
    """See that every video and every offered frame is there, before anything expensive starts.

    Raises:
        UsageError: some are missing; tells how many, and the first three.
    """
    wanted: set[Path] = set()
    missing: list[Path] = []
    for sample in samples:
        for path in (sample.video_path, *(frame.path for frame in sample.frames)):
            if path not in wanted and not path.exists():
                missing.append(path)
            wanted.add(path)
    if missing:
        named = [str(path) for path in missing[:_SHOWN_MISSING]]
        listed = ", ".join(named + ["…"] * (len(missing) > _SHOWN_MISSING))
        raise UsageError(
            f"{len(missing)} of {len(wanted)} files of this data set are missing: {listed}; "
            "unpack the videos there, or prepare the data again where they are now: "
            "seg-research data NAME --root FOLDER"
        )


def _frame(image: _Image, where: str) -> Frame:
    path = Path(image.image)
    frame_id = frame_id_of(path.stem)
    if frame_id is None:
        raise UsageError(
            f"{where}: frame file {path.name!r} is not named by a number; rename the frames, e.g. "
            "00000.jpg"
        )
    if image.resized_width < 1 or image.resized_height < 1:
        raise UsageError(
            f"{where}: frame {path.name} is shown at {image.resized_width}x{image.resized_height}; "
            "expected a positive size"
        )
    shown_size = ImageSize(image.resized_width, image.resized_height)
    return Frame(frame_id, path, shown_size, image.role or FrameRole.OFFERED)


def _ground_truth(row: _PreparedRow, frames: Sequence[Frame], where: str) -> GroundTruth:
    known = row.reward_model
    targets = read_targets(known.ground_truth, _scales(row, frames, where), where)
    shown = sorted(chain.from_iterable(target.frames for target in targets))
    if known.absent and shown:
        raise UsageError(
            f"{where}: `absent` is true, but the ground truth shows a target on frame "
            f"{shown[0]}; correct one of the two"
        )
    steps = tuple(known.steps or ())
    return GroundTruth(() if known.absent else targets, steps, bool(known.absent), known.difficulty)


def _scales(row: _PreparedRow, frames: Sequence[Frame], where: str) -> dict[FrameId, ImageSize]:
    """Return what width and height of each frame are in the unit of the row's coordinates."""
    if row.extra_info.coordinates is not Coordinates.RESIZED_PIXELS:
        return {frame.frame_id: THOUSANDTHS for frame in frames}
    scales: dict[FrameId, ImageSize] = {}
    for frame in frames:
        if scales.setdefault(frame.frame_id, frame.shown_size) != frame.shown_size:
            raise UsageError(
                f"{where}: frame {frame.frame_id} is shown at two sizes, so coordinates in pixels "
                "of the resized frame are ambiguous; write thousandths"
            )
    return scales
