"""Pictures as they travel: small JPEG data URLs."""

from __future__ import annotations

import base64
import io
import logging
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

MAX_SIDE_PX = 256
_MAX_SOURCE_PIXELS = 64_000_000
_JPEG_QUALITY = 85
_logger = logging.getLogger(__name__)


@lru_cache(maxsize=1024)
def data_url(path: Path) -> str | None:
    """Return the picture as a JPEG data URL, its longer side at most `MAX_SIDE_PX`, transparency on white; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_SOURCE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels")
            image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
            picture = _on_white(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        _logger.warning("%s: cannot read this picture (%s); its title is served without it", path, error)
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
