"""Prepared rows, as verl's data sets read them, and back into samples.

A row's boxes and points are thousandths of the frame, unless `extra_info.coordinates` says that
they are pixels of the resized frame (the convention of Qwen2.5-VL); samples hold thousandths
always. Every complaint names file and row, the first row being row 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from seg_common.errors import UsageError
from seg_common.files import atomic_path
from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import NORM, ImageSize, Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId, frame_id_of
from seg_research.data.sample import Frame, GroundTruth, Sample, TargetOnFrame

_SHOWN_MISSING = 3


class Coordinates(StrEnum):
    """What the numbers of a row's ground truth count."""

    NORM1000 = "norm1000"
    RESIZED_PIXELS = "resized_pixels"


PREPARED_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("agent_name", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        (
            "images",
            pa.list_(
                pa.struct(
                    [
                        ("image", pa.string()),
                        ("resized_height", pa.int64()),
                        ("resized_width", pa.int64()),
                    ]
                )
            ),
        ),
        ("ability", pa.string()),
        ("id", pa.string()),
        ("video_path", pa.string()),
        ("question", pa.string()),
        (
            "reward_model",
            pa.struct(
                [
                    ("style", pa.string()),
                    ("ground_truth", pa.string()),
                    ("steps", pa.list_(pa.string())),
                    ("absent", pa.bool_()),
                ]
            ),
        ),
        (
            "extra_info",
            pa.struct(
                [
                    ("split", pa.string()),
                    ("index", pa.int64()),
                    ("height", pa.int64()),
                    ("width", pa.int64()),
                    ("image_paths", pa.list_(pa.string())),
                    ("coordinates", pa.string()),
                ]
            ),
        ),
    ]
)


class _Image(BaseModel):
    image: str
    resized_height: int
    resized_width: int


class _Mask(BaseModel):
    size: tuple[PositiveInt, PositiveInt]
    origin: tuple[NonNegativeInt, NonNegativeInt]
    stride: PositiveInt
    png: str


class _Truth(BaseModel):
    bbox_2d: tuple[float, float, float, float]
    point_2d: tuple[float, float]
    area: float
    max_conn_area: float
    mask: _Mask | None = None


class _RewardModel(BaseModel):
    ground_truth: str
    steps: list[str] | None = None
    absent: bool | None = None


class _ExtraInfo(BaseModel):
    coordinates: Coordinates | None = None


class _Row(BaseModel):
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
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=PREPARED_SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a parquet file.

    Raises:
        UsageError: the file is missing or not readable as parquet.
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; make it with: seg-research data okvos --root {path.parent}"
        )
    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path}: not a readable parquet file ({_first_line(error)}); make it again"
        ) from None


def read_samples(path: Path) -> list[Sample]:
    """Read prepared rows as samples. Whether the files they name exist is another question
    (`check_paths`).

    Raises:
        UsageError: the file or a row is not what `seg-research data okvos` writes, or a sample id
            comes twice; names the row.
    """
    samples = [
        sample_of(row, f"{path} row {number}") for number, row in enumerate(read_table(path))
    ]
    first_row: dict[str, int] = {}
    for number, sample in enumerate(samples):
        earlier = first_row.setdefault(sample.sample_id, number)
        if earlier != number:
            raise UsageError(
                f"{path} row {number}: id {sample.sample_id!r} was used by row {earlier} already; ids must differ"
            )
    return samples


def sample_of(row: Mapping[str, Any], where: str) -> Sample:
    """Turn one prepared row into a sample; `where` begins every complaint.

    Raises:
        UsageError: a column is missing, of the wrong type or out of range.
    """
    try:
        parsed = _Row.model_validate(row)
    except ValidationError as error:
        raise UsageError(
            f"{where}: {_first_fault(error)}; prepare it again with: seg-research data okvos"
        ) from None
    if not parsed.images:
        raise UsageError(
            f"{where}: no frames in `images`; prepare it again with: seg-research data okvos"
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
    wanted = dict.fromkeys(
        path
        for sample in samples
        for path in (sample.video_path, *(frame.path for frame in sample.frames))
    )
    missing = [path for path in wanted if not path.exists()]
    if missing:
        listed = ", ".join(map(str, missing[:_SHOWN_MISSING])) + (
            ", …" if len(missing) > _SHOWN_MISSING else ""
        )
        raise UsageError(
            f"{len(missing)} of {len(wanted)} files of this data set are missing: {listed}; "
            "unpack the videos there, or prepare the data again where they are now: seg-research data okvos --root FOLDER"
        )


def _frame(image: _Image, where: str) -> Frame:
    path = Path(image.image)
    frame_id = frame_id_of(path.stem)
    if frame_id is None:
        raise UsageError(
            f"{where}: frame file {path.name!r} is not named by a number; rename the frames, e.g. 00000.jpg"
        )
    if image.resized_width < 1 or image.resized_height < 1:
        raise UsageError(
            f"{where}: frame {path.name} is shown at {image.resized_width}x{image.resized_height}; expected a positive size"
        )
    return Frame(frame_id, path, ImageSize(image.resized_width, image.resized_height))


def _ground_truth(row: _Row, frames: Sequence[Frame], where: str) -> GroundTruth:
    try:
        by_name = json.loads(row.reward_model.ground_truth)
        truths = {name: _Truth.model_validate(truth) for name, truth in by_name.items()}
    except ValidationError as error:
        raise UsageError(f"{where}: ground truth: {_first_fault(error)}") from None
    except (ValueError, AttributeError) as error:
        raise UsageError(
            f"{where}: ground truth is not a JSON object keyed by frame id ({error})"
        ) from None
    sizes = {frame.frame_id: frame.shown_size for frame in frames}
    found: dict[FrameId, TargetOnFrame] = {}
    for name, truth in truths.items():
        frame_id = frame_id_of(name)
        if frame_id is None or frame_id not in sizes:
            raise UsageError(
                f"{where}: ground truth for frame {name!r}, but the frames offered are {sorted(sizes)}"
            )
        scale = (
            sizes[frame_id]
            if row.extra_info.coordinates is Coordinates.RESIZED_PIXELS
            else ImageSize(NORM, NORM)
        )
        found[frame_id] = _frame_truth(truth, scale, f"{where} frame {name}")
    absent = bool(row.reward_model.absent)
    if absent and found:
        raise UsageError(
            f"{where}: `absent` is true, but the ground truth shows the target on frame {min(found)}; correct one of the two"
        )
    steps = tuple(row.reward_model.steps or ())
    return GroundTruth(steps=steps, absent=True) if absent else GroundTruth.of_one(found, steps)


def _frame_truth(truth: _Truth, scale: ImageSize, where: str) -> TargetOnFrame:
    per_x, per_y = NORM / scale.width_px, NORM / scale.height_px
    x1, y1, x2, y2 = truth.bbox_2d
    x, y = truth.point_2d
    try:
        box = Norm1000Box(x1 * per_x, y1 * per_y, x2 * per_x, y2 * per_y)
        point = Norm1000Point(x * per_x, y * per_y)
    except ValueError as error:
        raise UsageError(
            f"{where}: bbox_2d={[*truth.bbox_2d]}, point_2d={[*truth.point_2d]}: {error}"
        ) from None
    for name, share in (("area", truth.area), ("max_conn_area", truth.max_conn_area)):
        if not 0 < share <= 1:
            raise UsageError(
                f"{where}: {name}={share} is outside 0..1; it is a share of the largest over the offered frames"
            )
    return TargetOnFrame(
        box, point, truth.area, truth.max_conn_area, truth.mask and _mask(truth.mask)
    )


def mask_to_json(mask: CoarseMask | None) -> dict[str, Any] | None:
    """Return a target's mask as a ground truth's JSON has it."""
    if mask is None:
        return None
    return {
        "size": list(mask.size),
        "origin": [mask.left_px, mask.top_px],
        "stride": mask.stride_px,
        "png": mask.png,
    }


def mask_from_json(fields: object, where: str) -> CoarseMask:
    """Read what `mask_to_json` wrote; whether the samples are readable shows when they are used.

    Raises:
        UsageError: a field is missing or malformed.
    """
    try:
        return _mask(_Mask.model_validate(fields))
    except ValidationError as error:
        raise UsageError(f"{where}: mask: {_first_fault(error)}") from None


def _mask(mask: _Mask) -> CoarseMask:
    return CoarseMask(ImageSize(*mask.size), *mask.origin, mask.stride, mask.png)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"column {place}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
