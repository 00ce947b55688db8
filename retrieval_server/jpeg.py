"""Images as they travel: small JPEGs."""

from __future__ import annotations

import io
import logging
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

MAX_SIDE_PX = 256
_MAX_SOURCE_PIXELS = 64_000_000
_JPEG_QUALITY = 85
_logger = logging.getLogger(__name__)


@lru_cache(maxsize=1024)
def jpeg_of_file(path: Path) -> bytes | None:
    """Return an image file as `jpeg_of` does; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return jpeg_of(file)
    except (OSError, ValueError) as error:
        _logger.warning(
            "%s: cannot read this image (%s); its title is served without it", path, error
        )
        return None


def jpeg_of(
    file: BinaryIO,
    *,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = _MAX_SOURCE_PIXELS,
) -> bytes:
    """Return an image as JPEG, its longer side at most `MAX_SIDE_PX`, transparency on white.

    Args:
        file: holds the image.
        formats: of Pillow, the only ones that are tried; images from the web need few decoders.
        max_pixels: more are refused before they are decoded.

    Raises:
        ValueError: it is no image, is broken or has too many pixels.
    """
    try:
        with Image.open(file, formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.width}x{image.height} pixels")
            image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
            small = _on_white(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
