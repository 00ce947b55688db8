"""Masks as COCO's compressed run lengths: background and foreground take turns, column by column,
from the top left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from seg_common.errors import UsageError
from seg_research.core.masks import Mask

MAX_PIXELS = 178_956_970
"""Of one mask; Pillow refuses larger PNGs, too."""

_FIRST_CHARACTER = ord("0")
_MAX_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Rle:
    """One mask as COCO's compressed run lengths; not checked before `decode`."""

    height_px: int
    width_px: int
    counts: str

    def to_json(self) -> dict[str, Any]:
        """Return `{"size": [H, W], "counts": text}`, the form of COCO files."""
        return {"size": [self.height_px, self.width_px], "counts": self.counts}

    def decode(self) -> Mask:
        """Return the mask, boolean (H, W).

        Raises:
            UsageError: these are no run lengths, or they do not fill the image.
        """
        return decode_rle(self.to_json())


def decode_rle(encoded: Mapping[str, Any]) -> Mask:
    """Return the mask (H, W) of `{"size": [H, W], "counts": compressed text}`.

    Raises:
        UsageError: these are no run lengths, or they do not fill the image.

    Source: pycocotools, `maskApi`: numbers of 5-bit digits, lowest first; from the fourth on each
    is the difference to the last but one.
    """
    size, counts = encoded.get("size"), encoded.get("counts")
    if not _is_size(size) or not isinstance(counts, str):
        raise UsageError(
            "run lengths: expected size [rows, columns] and counts as text, found "
            f"{str(dict(encoded))[:80]}"
        )
    height_px, width_px = cast("list[int]", size)
    if height_px * width_px > MAX_PIXELS:
        raise UsageError(f"run lengths: size {size} is more than {MAX_PIXELS} pixels")
    lengths = _read_numbers(counts)
    lengths[1::2], lengths[2::2] = np.cumsum(lengths[1::2]), np.cumsum(lengths[2::2])
    if (lengths < 0).any() or lengths.sum() != height_px * width_px:
        raise UsageError(
            f"run lengths: {lengths.sum()} pixels in counts, {height_px * width_px} in size {size}"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, lengths).reshape(width_px, height_px).T)


def _is_size(size: object) -> bool:
    sides = cast("list[object]", size) if isinstance(size, list) else []
    return len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)


def _read_numbers(text: str) -> NDArray[np.int64]:
    """Read signed numbers; bit 5 of a character says that the number continues, bit 4 of its last
    one that it is negative.
    """
    characters = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if characters.size == 0 or characters.min() < 0 or characters.max() > 63 or characters[-1] & 32:
        raise UsageError(f"run lengths: not compressed counts: {text[:40]!r}")
    is_last = (characters & 32) == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    digit = np.arange(len(characters)) - np.repeat(starts, np.diff([*starts, len(characters)]))
    if digit.max() >= _MAX_DIGITS:
        raise UsageError(f"run lengths: a number too long in {text[:40]!r}")
    numbers = np.add.reduceat((characters & 31) << (5 * digit), starts)
    num_bits = 5 * (digit[is_last] + 1)
    return numbers - np.where(characters[is_last] & 16, 1 << num_bits, 0)
