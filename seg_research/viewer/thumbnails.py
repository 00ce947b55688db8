"""Images of the page: small JPEGs inside the HTML itself. Axes: H rows, W columns, C colours."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from seg_research.core.masks import Mask

PREDICTION_RGB = (255, 112, 36)
TRUTH_RGB = (34, 211, 238)
FILL_OPACITY = 0.18
OUTSIDE_RGB, OUTSIDE_OPACITY = (24, 26, 34), 0.42


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image element: `uri` is a data address, base64 and so free of markup."""

    uri: str
    width_px: int
    height_px: int
    caption: str = ""


def embed(image: Image.Image, width_px: int, caption: str = "", quality: int = 76) -> Thumbnail:
    """Encode as JPEG, scaled down to the width (never up)."""
    small = scale_to_width(image, width_px).convert("RGB")
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=quality, optimize=True)
    return Thumbnail(
        "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        *small.size,
        caption,
    )


def scale_to_width(image: Image.Image, width_px: int) -> Image.Image:
    """Scale down to a width, keeping the aspect ratio; at least one pixel high, at most three times
    as high as wide.
    """
    width = min(width_px, image.width)
    height = min(max(1, round(image.height * width / image.width)), 3 * width)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def overlay_masks(
    frame: Image.Image, prediction_HW: Mask | None, truth_HW: Mask | None, width_px: int
) -> Image.Image:
    """Draw the prediction as a lit, tinted area with an edge and the truth as an outline, on the
    frame scaled to a width.

    What is outside the prediction is darkened, since a tint alone is lost on an object of its
    colour. Masks of another size than the frame are stretched over it.
    """
    small = scale_to_width(frame.convert("RGB"), width_px)
    pixels_HWC = np.asarray(small, dtype=np.float32).copy()
    if prediction_HW is not None:
        area = _fit(prediction_HW, small.size)
        _paint(pixels_HWC, ~area, OUTSIDE_RGB, OUTSIDE_OPACITY)
        _paint(pixels_HWC, area, PREDICTION_RGB, FILL_OPACITY)
        _paint(pixels_HWC, area & ~_filtered(area, ImageFilter.MinFilter(5)), PREDICTION_RGB, 1.0)
    if truth_HW is not None:
        area = _fit(truth_HW, small.size)
        _paint(pixels_HWC, _filtered(area, ImageFilter.MaxFilter(5)) & ~area, TRUTH_RGB, 1.0)
    return Image.fromarray(pixels_HWC.round().astype(np.uint8))


def _paint(
    pixels_HWC: NDArray[np.float32], where_HW: Mask, colour: tuple[int, int, int], opacity: float
) -> None:
    pixels_HWC[where_HW] = (1 - opacity) * pixels_HWC[where_HW] + opacity * np.asarray(
        colour, dtype=np.float32
    )


def _fit(mask_HW: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(_as_image(mask_HW).resize(size, Image.Resampling.BILINEAR)) > 127


def _filtered(mask_HW: Mask, image_filter: ImageFilter.MinFilter | ImageFilter.MaxFilter) -> Mask:
    return np.asarray(_as_image(mask_HW).filter(image_filter)) > 127


def _as_image(mask_HW: Mask) -> Image.Image:
    return Image.fromarray(mask_HW.astype(np.uint8) * 255)
