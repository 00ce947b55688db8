"""OK-VOS and everything laid out like it: raw rows, frames and masks become prepared rows
(specs/seg_research.md §1).

The steps and the numbers are those of the original preparation. What differs is deliberate: the
random draw is seeded per sample, a frame is never offered twice, any non-zero mask pixel is target
(as the evaluation has it), and a fault in the data names its row.

Axes: H, W mask.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from scipy import ndimage

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import (
    ImageSize,
    PixelBox,
    PixelPoint,
    box_to_norm1000,
    point_to_norm1000,
)
from seg_research.core.masks import Mask, mask_box, read_mask
from seg_research.core.seeding import derive_seed
from seg_research.core.video import FRAME_SUFFIXES, frame_id_of, read_image
from seg_research.data.parallel import Progress, map_ordered
from seg_research.data.rows import Coordinates, read_table, write_rows
from seg_research.data.splits import Split
from seg_research.data.truth_json import mask_to_json

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)


class ModelType(StrEnum):
    """Model families; each has its own patch size and its own way of writing coordinates."""

    QWEN3_VL = "Qwen3VL"
    QWEN2_5_VL = "Qwen2.5VL"


_PATCH_FACTOR = {ModelType.QWEN3_VL: 32, ModelType.QWEN2_5_VL: 28}
_COORDINATES = {
    ModelType.QWEN3_VL: Coordinates.NORM1000,
    ModelType.QWEN2_5_VL: Coordinates.RESIZED_PIXELS,
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """How to prepare a split.

    Attributes:
        num_frames: frames offered to the policy, evenly spaced.
        max_size_px, min_size_px: longer and shorter side of a shown frame, rounded up to whole
            patches; equal sides squash to a square.
        patch_factor: pixels a visual token covers along a side; None takes the model family's.
        seed: fixes which frame with the target replaces its nearest neighbour in train samples.
        skip_bad: leave out faulty rows instead of stopping; for train only, as scores over fewer
            questions cannot be compared.
    """

    split: Split
    num_frames: int = 6
    max_size_px: int = 448
    min_size_px: int = 448
    model_type: ModelType = ModelType.QWEN3_VL
    patch_factor: int | None = None
    seed: int = 0
    skip_bad: bool = False

    def __post_init__(self) -> None:
        for name in ("num_frames", "max_size_px", "min_size_px"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.patch_factor is not None and self.patch_factor < 1:
            raise UsageError(f"patch_factor is {self.patch_factor}; expected at least 1")
        if self.min_size_px > self.max_size_px:
            raise UsageError(
                f"min_size {self.min_size_px} is larger than max_size {self.max_size_px}; exchange them"
            )
        if self.skip_bad and self.split is not Split.TRAIN:
            raise UsageError(
                f"--skip-bad works for train only: leaving out {self.split} rows would change what the scores mean"
            )

    def rounded_up(self, side_px: int) -> int:
        """Round a side up to whole patches."""
        factor = self.patch_factor or _PATCH_FACTOR[self.model_type]
        return -(-side_px // factor) * factor

    def shown_size(self, size: ImageSize) -> ImageSize:
        """Return the size at which a frame of this size is shown."""
        long_px, short_px = self.rounded_up(self.max_size_px), self.rounded_up(self.min_size_px)
        width, height = size
        return ImageSize(
            long_px if width > height else short_px, long_px if height > width else short_px
        )

    @property
    def file_name(self) -> str:
        """Name of the prepared file, e.g. `train_6_448_448.parquet`."""
        return f"{self.split}_{self.num_frames}_{self.rounded_up(self.max_size_px)}_{self.rounded_up(self.min_size_px)}.parquet"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of a preparation: the file, its number of rows, and the complaints about rows left
    out.
    """

    path: Path
    num_rows: int
    skipped: tuple[str, ...]


class _RawRow(BaseModel):
    """One question as the benchmark ships it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    id: str
    question: str
    video: str
    oid: str
    images: list[str]
    ability: str
    steps: list[str] | None = None
    absent: bool | None = None

    @field_validator("id", "video", "oid")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        # These become folder names, here and where masks are written.
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise ValueError(f"{name!r} cannot be used as a folder name")
        return name


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A raw row with its place in the file."""

    index: int
    row: _RawRow


def prepare_okvos(
    root: Path, preparation: Preparation, workers: int = 1, progress: Progress | None = None
) -> Prepared:
    """Prepare one split of a benchmark folder and write the rows and the evaluation mapping beside
    the raw rows.

    Raises:
        UsageError: something in the folder is missing, unreadable or inconsistent; names file and
            row.
    """
    root = root.resolve()
    raw_path = root / f"{preparation.split}.parquet"
    numbered = _read_raw(raw_path)
    results = map_ordered(partial(_prepare_or_skip, root, preparation), numbered, workers, progress)
    pairs = [(item, result) for item, result in zip(numbered, results, strict=True)]
    rows = [result for _, result in pairs if not isinstance(result, str)]
    skipped = tuple(result for _, result in pairs if isinstance(result, str))
    if not rows:
        raise UsageError(
            f"{raw_path}: no usable row"
            + (f"; the first: {skipped[0]}" if skipped else " (the file is empty)")
        )
    out = root / preparation.file_name
    write_rows(out, rows)
    kept = [item.row for item, result in pairs if not isinstance(result, str)]
    _write_mapping(root, preparation.split, kept)
    return Prepared(out, len(rows), skipped)


def _write_mapping(root: Path, split: Split, rows: Sequence[_RawRow]) -> None:
    """Write which mask folder belongs to which question, as the evaluation reads it; for test also
    under the original's name.
    """
    mapping = [
        [row.id, str(root / split / "Annotations" / row.video / row.oid), row.ability]
        for row in rows
    ]
    content = json.dumps(mapping, ensure_ascii=False, indent=1) + "\n"
    write_atomic(root / f"{split}_meta_mapping.json", content)
    if split is Split.TEST:
        write_atomic(root / "meta_mapping.json", content)


def _read_raw(path: Path) -> list[_Numbered]:
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; --root must be a folder in the layout of data/README.md"
        )
    numbered: list[_Numbered] = []
    seen: dict[str, int] = {}
    for index, raw in enumerate(read_table(path)):
        try:
            row = _RawRow.model_validate(
                {**raw, "id": index if raw.get("id") is None else raw["id"]}
            )
        except ValidationError as error:
            fault = error.errors()[0]
            raise UsageError(
                f"{path} row {index}: column {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            ) from None
        if row.id in seen:
            raise UsageError(
                f"{path} row {index}: id {row.id!r} was used by row {seen[row.id]} already; ids must differ"
            )
        seen[row.id] = index
        numbered.append(_Numbered(index, row))
    return numbered


def _prepare_or_skip(root: Path, preparation: Preparation, item: _Numbered) -> dict[str, Any] | str:
    """Prepare one row; where skipping is allowed, a faulty one is answered with the complaint."""
    try:
        return _prepare_row(root, preparation, item)
    except UsageError as error:
        if preparation.skip_bad:
            return str(error)
        if preparation.split is Split.TRAIN:
            raise UsageError(f"{error}; or leave faulty rows out with --skip-bad") from None
        raise


def _prepare_row(root: Path, preparation: Preparation, item: _Numbered) -> dict[str, Any]:
    row, split = item.row, preparation.split
    where = f"{root / f'{split}.parquet'} row {item.index} (id {row.id})"
    frames = _frame_files(root / split / "JPEGImages" / row.video, row.images, where)
    mask_folder = root / split / "Annotations" / row.video / row.oid
    masks = {} if row.absent and not mask_folder.exists() else _mask_files(mask_folder, where)
    anchored = split is Split.TRAIN and not row.absent
    chosen = _choose_frames(
        preparation, row.id, [path.stem for path in frames], masks, where, anchored=anchored
    )
    size = _common_size([frames[position] for position in chosen], where)
    shown = preparation.shown_size(size)
    truth = _ground_truth(
        [frames[position].stem for position in chosen],
        masks,
        size,
        shown,
        preparation.model_type,
        where,
    )
    if anchored and not truth:
        raise UsageError(
            f"{where}: the target is on none of the frames offered; correct its annotations"
        )
    if row.absent and truth:
        raise UsageError(
            f"{where}: `absent` is true, but a mask shows the target on frame {min(map(int, truth))}; correct one of the two"
        )
    used = [frames[position] for position in chosen]
    paths = [str(path) for path in used]
    targets = [] if row.absent else [{"id": row.oid, "frames": truth}]
    return {
        "data_source": f"Search_RVOS_{row.ability}",
        "images": [
            {"image": path, "resized_height": shown.height_px, "resized_width": shown.width_px}
            for path in paths
        ],
        "ability": row.ability,
        "id": row.id,
        "video_path": str(root / split / "JPEGImages" / row.video),
        "question": row.question,
        "reward_model": {
            "ground_truth": json.dumps({"targets": targets}),
            "steps": row.steps or [],
            "absent": bool(row.absent),
        },
        "extra_info": {
            "split": str(split),
            "index": item.index,
            "height": size.height_px,
            "width": size.width_px,
            "coordinates": str(_COORDINATES[preparation.model_type]),
        },
    }


def _frame_files(folder: Path, stems: Sequence[str], where: str) -> list[Path]:
    """Find the listed frames, in temporal order."""
    if not folder.is_dir():
        raise UsageError(f"{where}: no video folder {folder}; unpack the frames there")
    if not stems:
        raise UsageError(f"{where}: lists no frames in `images`")
    bad = next((stem for stem in stems if frame_id_of(stem) is None), None)
    if bad is not None:
        raise UsageError(
            f"{where}: frame {bad!r} of {folder} is not named by a number; rename the frames, e.g. 00000.jpg"
        )
    if len({int(stem) for stem in stems}) < len(stems):
        raise UsageError(
            f"{where}: two of the frames listed in `images` have the same number; every frame needs its own"
        )
    by_stem = {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in FRAME_SUFFIXES
    }
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise UsageError(
            f"{where}: {len(missing)} of {len(stems)} frames are missing in {folder}, the first is {missing[0]!r}"
        )
    return [by_stem[stem] for stem in sorted(stems, key=int)]


def _mask_files(folder: Path, where: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError(
            f"{where}: no mask folder {folder}; the row's video or oid is wrong, or the annotations are not unpacked"
        )
    return {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".png"}


def _choose_frames(
    preparation: Preparation,
    sample_id: str,
    stems: Sequence[str],
    masks: Mapping[str, Path],
    where: str,
    *,
    anchored: bool,
) -> list[int]:
    """Choose positions, evenly spaced; if `anchored`, one of them moves to a random frame that
    shows the target.
    """
    total, wanted = len(stems), preparation.num_frames
    if total <= wanted:
        return list(range(total))
    positions = [int(position) for position in np.linspace(0, total - 1, wanted)]
    if anchored and wanted > 1:
        shows = [
            position
            for position, stem in enumerate(stems)
            if stem in masks and _read_mask(masks[stem], where).any()
        ]
        if not shows:
            raise UsageError(
                f"{where}: the target is on no frame of the video (all masks are empty or missing); correct its annotations"
            )
        anchor = random.Random(derive_seed(preparation.seed, "okvos", "anchor", sample_id)).choice(
            shows
        )
        nearest = min(range(wanted), key=lambda i: abs(positions[i] - anchor))
        positions[nearest] = anchor
    return sorted(set(positions))


def _read_mask(path: Path, where: str) -> Mask:
    try:
        return read_mask(path)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _common_size(frames: Sequence[Path], where: str) -> ImageSize:
    """Decode the frames that will be shown, and return the size they share."""
    sizes: dict[ImageSize, Path] = {}
    for path in frames:
        try:
            sizes.setdefault(ImageSize(*read_image(path).size), path)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    if len(sizes) > 1:
        told = ", ".join(
            f"{path.name} {size.width_px}x{size.height_px}" for size, path in sizes.items()
        )
        raise UsageError(f"{where}: frames of different sizes ({told}); extract the video again")
    return next(iter(sizes))


def _ground_truth(
    stems: Sequence[str],
    masks: Mapping[str, Path],
    size: ImageSize,
    shown: ImageSize,
    model_type: ModelType,
    where: str,
) -> dict[str, dict[str, Any]]:
    """Measure the target on every offered frame that shows it; areas are divided by the largest of
    them.
    """
    found: dict[str, dict[str, Any]] = {}
    for stem in stems:
        if stem not in masks:
            continue
        mask_HW = _read_mask(masks[stem], where)
        if mask_HW.shape != (size.height_px, size.width_px):
            seen = (
                f"{mask_HW.shape[1]}x{mask_HW.shape[0]}"
                if mask_HW.ndim == 2
                else f"of shape {mask_HW.shape}"
            )
            raise UsageError(
                f"{where}: mask {masks[stem]} is {seen}, its frame {size.width_px}x{size.height_px}"
            )
        measured = measure(mask_HW)
        if measured is not None:
            box, point = _coordinates(measured, size, shown, model_type)
            areas = {"area": measured.area_px, "max_conn_area": measured.max_conn_area_px}
            found[str(int(stem))] = {
                "bbox_2d": box,
                "point_2d": point,
                **areas,
                "mask": mask_to_json(CoarseMask.of(mask_HW)),
            }
    for key in ("area", "max_conn_area"):
        largest = max((truth[key] for truth in found.values()), default=1)
        for truth in found.values():
            truth[key] /= largest
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """What a mask tells: tight box, deepest inside point, pixels, and pixels of the largest
    8-connected component.
    """

    box: PixelBox
    point: PixelPoint
    area_px: int
    max_conn_area_px: int


def measure(mask_HW: Mask) -> Measured | None:
    """Measure a mask; None if it is empty."""
    box = mask_box(mask_HW)
    if box is None:
        return None
    height, width = mask_HW.shape
    # One pixel around the box is enough: the background pixel nearest to any target pixel is never
    # farther out.
    top, left = max(0, int(box.y1) - 1), max(0, int(box.x1) - 1)
    crop_HW = mask_HW[top : min(height, int(box.y2) + 2), left : min(width, int(box.x2) + 2)]
    depth_HW = _depth(crop_HW)
    row, column = np.unravel_index(int(np.argmax(depth_HW)), crop_HW.shape)
    components_HW = np.zeros(crop_HW.shape, np.int32)
    ndimage.label(crop_HW, structure=_EIGHT_NEIGHBOURS, output=components_HW)
    return Measured(
        box=box,
        point=PixelPoint(float(left + column), float(top + row)),
        area_px=int(np.count_nonzero(crop_HW)),
        max_conn_area_px=int(np.bincount(components_HW.ravel())[1:].max()),
    )


def _depth(mask_HW: Mask) -> NDArray[np.float64]:
    """Return each pixel's distance to the nearest background pixel; where there is no background,
    to the image border.
    """
    if mask_HW.all():
        return np.asarray(ndimage.distance_transform_edt(np.pad(mask_HW, 1)))[1:-1, 1:-1]
    return np.asarray(ndimage.distance_transform_edt(mask_HW))


def _coordinates(
    measured: Measured, size: ImageSize, shown: ImageSize, model_type: ModelType
) -> tuple[list[int], list[int]]:
    """Write box and point in the model family's convention, as whole numbers."""
    box, point = measured.box, measured.point
    if _COORDINATES[model_type] is Coordinates.NORM1000:
        norm_point = point_to_norm1000(point, size)
        return [int(v) for v in box_to_norm1000(box, size).as_list()], [
            int(norm_point.x),
            int(norm_point.y),
        ]
    per_x, per_y = shown.width_px / size.width_px, shown.height_px / size.height_px
    return (
        [
            round(box.x1 * per_x),
            round(box.y1 * per_y),
            round(box.x2 * per_x),
            round(box.y2 * per_y),
        ],
        [round(point.x * per_x), round(point.y * per_y)],
    )
