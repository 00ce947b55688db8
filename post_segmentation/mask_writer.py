"""Masks of one prediction on their way to the disk: all of them appear, or none. Axes: N objects, H
rows, W columns.

They are gathered in a hidden folder beside their place and moved there when the last one is
written, so that a video that fails half-way leaves nothing an evaluator could take for masks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from post_segmentation.prompts import mask_folder
from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.core.masks import write_mask
from seg_research.core.video import FramePosition

STAGING_NAME = ".partial"
RLE_NAME = "masks.jsonl"


class MaskFormat(StrEnum):
    """How masks lie on the disk."""

    PNG = "png"
    """`<id>/<frame>.png`, 0 and 255, one a frame: the layout of the original."""
    RLE = "rle"
    """`<id>/masks.jsonl`, a line a frame: `{"frame": stem, "size": [rows, columns], "counts":
    COCO's compressed run lengths}`.
    """


class MaskWriter:
    """Write the masks of one prediction, its objects merged."""

    def __init__(
        self,
        out: Path,
        sample_id: str,
        names: Sequence[str],
        mask_format: MaskFormat,
        *,
        keep_objects: bool = False,
    ) -> None:
        """Write nothing yet.

        Args:
            out: folder of all predictions.
            sample_id: names the prediction's own folder.
            names: stems of the video's frames.
            mask_format: of the files.
            keep_objects: let `objects` tell the objects apart until `close`.
        """
        self._folder = mask_folder(out, sample_id)
        self._staging = out / STAGING_NAME / hashlib.sha256(sample_id.encode()).hexdigest()[:16]
        self._names, self._format, self._keep_objects = names, mask_format, keep_objects
        self._lines: dict[FramePosition, str] = {}
        shutil.rmtree(self._staging, ignore_errors=True)

    def add(self, position: FramePosition, masks_NHW: NDArray[np.bool_]) -> None:
        """Take the masks of all objects on one frame.

        Raises:
            UsageError: they cannot be written.
        """
        merged_HW = np.logical_or.reduce(masks_NHW)
        if self._format is MaskFormat.PNG:
            write_mask(self._staging / f"{self._names[position]}.png", merged_HW)
        else:
            self._lines[position] = json.dumps(
                {"frame": self._names[position], **encode_rle(merged_HW)}
            )
        if self._keep_objects:
            # Eight objects to a byte, so that any number of overlapping ones fits a grey picture.
            packed = np.packbits(masks_NHW, axis=0)
            self._planes(position).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(packed.reshape(-1, packed.shape[-1])).save(
                self._planes(position), compress_level=1
            )

    def objects(self, position: FramePosition, num_objects: int) -> NDArray[np.bool_]:
        """Return what `add` was given (N, H, W); needs `keep_objects`."""
        with Image.open(self._planes(position)) as image:
            planes = np.asarray(image)
        num_planes = -(-num_objects // 8)
        return np.unpackbits(
            planes.reshape(num_planes, -1, planes.shape[-1]), axis=0, count=num_objects
        ).astype(bool)

    def commit(self) -> None:
        """Put the masks in their place, in the stead of earlier ones.

        Raises:
            UsageError: the place cannot be written to.
        """
        if self._format is MaskFormat.RLE:
            write_atomic(
                self._folder / RLE_NAME,
                "".join(f"{self._lines[position]}\n" for position in sorted(self._lines)),
            )
        pictures = (
            {f"{name}.png" for name in self._names}
            if self._format is MaskFormat.PNG
            else set[str]()
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in pictures:
                (self._staging / name).replace(self._folder / name)
            for stale in {path.name for path in self._folder.glob("*.png")} - pictures:
                (self._folder / stale).unlink()
            if pictures:
                (self._folder / RLE_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self._folder}: cannot write ({error.strerror}); free its place or choose another folder"
            ) from None

    def close(self) -> None:
        """Remove whatever was not put in its place."""
        shutil.rmtree(self._staging, ignore_errors=True)
        self._lines.clear()

    def _planes(self, position: FramePosition) -> Path:
        return self._staging / "objects" / f"{position}.png"


def is_complete(out: Path, sample_id: str, num_frames: int, mask_format: MaskFormat) -> bool:
    """Tell whether the masks of a prediction are in their place."""
    folder = mask_folder(out, sample_id)
    if mask_format is MaskFormat.RLE:
        return (folder / RLE_NAME).is_file()
    return sum(1 for _ in folder.glob("*.png")) >= num_frames


def encode_rle(mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask as COCO's compressed run lengths: `size` [rows, columns] and `counts`.

    Raises:
        UsageError: pycocotools is not installed.
    """
    encoded: Any = _coco().encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": list(mask_HW.shape), "counts": encoded["counts"].decode("ascii")}


def _coco() -> Any:
    try:
        from pycocotools import mask
    except ModuleNotFoundError:
        raise UsageError("--format rle needs pycocotools: pip install pycocotools") from None
    return mask
