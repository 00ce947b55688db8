"""Binary masks: boolean arrays (H, W) in memory, 0/255 single-channel PNG on disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.core.geometry import PixelBox

Mask: TypeAlias = NDArray[np.bool_]


def read_mask(path: Path) -> Mask:
    """Read a mask PNG as boolean (H, W); anything non-zero is foreground, palette images by index.

    Raises:
        UsageError: the file is missing or is not a readable image.
    """
    try:
        with Image.open(path) as image:
            array = np.asarray(
                image if image.mode in ("L", "P", "1", "I;16") else image.convert("L")
            )
    except FileNotFoundError:
        raise UsageError(f"{path}: no such mask file") from None
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise UsageError(f"{path}: not a readable mask image ({error})") from None
    return array != 0


def write_mask(path: Path, mask_HW: Mask) -> None:
    """Write a boolean mask as a 0/255 PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(mask_HW.astype(np.uint8) * 255).save(buffer, format="PNG", compress_level=1)
    write_atomic(path, buffer.getvalue())


def mask_box(mask_HW: Mask) -> PixelBox | None:
    """Return the tight box (inclusive pixel extremes) of a mask, or None if it is empty."""
    rows = np.flatnonzero(mask_HW.any(axis=1))
    columns = np.flatnonzero(mask_HW.any(axis=0))
    if rows.size == 0:
        return None
    return PixelBox(float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1]))
