"""What is known of the right answer to one question: boxes by frame where the line or the prepared
row has them, masks where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

from seg_common.errors import UsageError
from seg_research.core.geometry import (
    ImageSize,
    Norm1000Box,
    PixelBox,
    box_to_norm1000,
    box_to_pixels,
)
from seg_research.core.masks import Mask, mask_box, read_mask
from seg_research.core.video import frame_id_of
from seg_research.records.truth import Frames, read_gts

_BEYOND = 1e15
"""Larger than any number that means something here."""


@dataclass(frozen=True, slots=True)
class TruthView:
    """The ground truth of one question.

    Attributes:
        targets: frames of each target, as they were written.
        masks_dir: holds `<frame>.png`; None where there are no masks.
    """

    targets: tuple[Frames, ...]
    masks_dir: Path | None

    @classmethod
    def of(cls, gts: object, masks_dir: Path | None) -> TruthView:
        """Read the field `gts`; a broken one is no truth."""
        try:
            targets = read_gts({"gts": gts}) or {}
        except UsageError:
            targets = {}
        return cls(tuple(targets.values()), masks_dir)

    def mask(self, stem: str) -> Mask | None:
        """Return the mask of all targets on one frame; None where there is none."""
        return find_mask(self.masks_dir, stem)

    def boxes(self, stem: str, size: ImageSize) -> tuple[PixelBox, ...]:
        """Return the boxes on one frame, in pixels of `size`; empty where no target is on it or
        nothing is known.
        """
        found = [read_box(_on_frame(frames, stem).get("bbox_2d")) for frames in self.targets]
        boxes = [box for box in found if box is not None]
        if not boxes:
            boxes = _box_of_mask(self.mask(stem))
        return tuple(box_to_pixels(box, size) for box in boxes)


def find_mask(folder: Path | None, stem: str) -> Mask | None:
    """Read the mask of a frame; None where it is not there or not readable."""
    if folder is None:
        return None
    try:
        return read_mask(folder / f"{stem}.png")
    except (UsageError, OSError, ValueError):
        return None


def read_box(value: object) -> Norm1000Box | None:
    """Read [x1, y1, x2, y2] in thousandths; None where it is anything else."""
    numbers = read_numbers(value, 4)
    try:
        return None if numbers is None else Norm1000Box(*numbers)
    except ValueError:
        return None


def read_numbers(value: object, count: int) -> list[float] | None:
    """Read a list of that many finite numbers; None where it is anything else."""
    if not isinstance(value, list | tuple):
        return None
    items = cast("Sequence[object]", value)
    numbers: list[float] = [float(item) for item in items if _is_number(item)]
    return numbers if len(numbers) == len(items) == count else None


def _is_number(value: object) -> TypeGuard[float]:
    # A comparison, because not every integer of JSON has a float; False for NaN, too.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _BEYOND


def _on_frame(frames: Frames, stem: str) -> Mapping[str, Any]:
    return frames.get(str(frame_id_of(stem))) or frames.get(stem) or {}


def _box_of_mask(mask_HW: Mask | None) -> list[Norm1000Box]:
    tight = None if mask_HW is None else mask_box(mask_HW)
    if mask_HW is None or tight is None:
        return []
    height_px, width_px = mask_HW.shape
    return [box_to_norm1000(tight, ImageSize(width_px, height_px))]
