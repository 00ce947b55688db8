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
from seg_research.core.masks import Mask, read_mask, write_mask
from seg_research.core.rle import decode_rle
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
        num_objects: int,
        *,
        keep_objects: bool = False,
    ) -> None:
        """Write nothing yet.

        Args:
            out: folder of all predictions.
            sample_id: names the prediction's own folder.
            names: stems of the video's frames.
            mask_format: of the files.
            num_objects: of the prediction.
            keep_objects: let `objects` tell the objects apart until `close`.
        """
        self._folder = mask_folder(out, sample_id)
        self._staging = out / STAGING_NAME / hashlib.sha256(sample_id.encode()).hexdigest()[:16]
        self._names, self._format = names, mask_format
        self._num_objects, self._keep_objects = num_objects, keep_objects
        self._lines: dict[FramePosition, str] = {}
        self._num_added: dict[FramePosition, int] = {}
        shutil.rmtree(self._staging, ignore_errors=True)

    def add(
        self, position: FramePosition, masks_NHW: NDArray[np.bool_], numbers: Sequence[int]
    ) -> None:
        """Take the masks of some objects on one frame.

        Objects that were prompted on different frames may come in several calls; what came before
        is read back, so that no mask waits in memory.

        Raises:
            UsageError: they cannot be written.
        """
        merged_HW = np.logical_or.reduce(masks_NHW)
        added_before = self._num_added.get(position, 0)
        if added_before:
            merged_HW |= self._read_back(position)
        self._num_added[position] = added_before + len(numbers)
        if self._format is MaskFormat.PNG:
            write_mask(self._png(position), merged_HW)
        else:
            encoded = encode_rle(merged_HW)
            self._lines[position] = json.dumps({"frame": self._names[position], **encoded})
        if self._keep_objects:
            self._add_objects(position, masks_NHW, numbers, is_first=not added_before)

    def objects(self, position: FramePosition) -> NDArray[np.bool_]:
        """Return the masks of all objects (N, H, W); needs `keep_objects`."""
        with Image.open(self._planes(position)) as image:
            planes = np.asarray(image)
        num_planes = -(-self._num_objects // 8)
        return np.unpackbits(
            planes.reshape(num_planes, -1, planes.shape[-1]), axis=0, count=self._num_objects
        ).astype(bool)

    def commit(self) -> None:
        """Put the masks in their place, in the stead of earlier ones.

        Raises:
            UsageError: the place cannot be written to, or masks of some frames are missing.
        """
        whole = sum(number == self._num_objects for number in self._num_added.values())
        if whole < len(self._names):
            raise UsageError(
                f"the back-end gave all masks of {whole} frames; the video has {len(self._names)}"
            )
        if self._format is MaskFormat.RLE:
            write_atomic(
                self._folder / RLE_NAME,
                "".join(f"{self._lines[position]}\n" for position in sorted(self._lines)),
            )
            images: set[str] = set()
        else:
            images = {f"{name}.png" for name in self._names}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in images:
                (self._staging / name).replace(self._folder / name)
            for stale in {path.name for path in self._folder.glob("*.png")} - images:
                (self._folder / stale).unlink()
            if images:
                (self._folder / RLE_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self._folder}: cannot write ({error.strerror});"
                " free its place or choose another folder"
            ) from None

    def close(self) -> None:
        """Remove whatever was not put in its place."""
        shutil.rmtree(self._staging, ignore_errors=True)
        self._lines.clear()
        self._num_added.clear()

    def _read_back(self, position: FramePosition) -> Mask:
        if self._format is MaskFormat.PNG:
            return read_mask(self._png(position))
        return decode_rle(json.loads(self._lines[position]))

    def _add_objects(
        self,
        position: FramePosition,
        masks_NHW: NDArray[np.bool_],
        numbers: Sequence[int],
        *,
        is_first: bool,
    ) -> None:
        shape = (self._num_objects, *masks_NHW.shape[1:])
        all_NHW = np.zeros(shape, np.bool_) if is_first else self.objects(position)
        all_NHW[list(numbers)] = masks_NHW
        # Eight objects to a byte, so that any number of overlapping ones fits a grey image.
        packed = np.packbits(all_NHW, axis=0)
        self._planes(position).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(packed.reshape(-1, packed.shape[-1])).save(
            self._planes(position), compress_level=1
        )

    def _png(self, position: FramePosition) -> Path:
        return self._staging / f"{self._names[position]}.png"

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
