"""Images of files at the sizes in which they are shown."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from seg_research.core.byte_cache import ByteCache
from seg_research.core.geometry import ImageSize
from seg_research.core.video import read_image

DEFAULT_MAX_BYTES = 256 << 20


class ImageCache:
    """Decodes and resizes an image file once for all who show it. Threads may share it."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Keep at most `max_bytes` of pixels."""
        self._kept: ByteCache[Image.Image] = ByteCache(max_bytes)

    def read(self, path: Path, size: ImageSize) -> Image.Image:
        """Decode an image file as RGB and squash it to a size. All rollouts of a sample get the
        same image, which nobody may change.

        Raises:
            UsageError: the file is missing or corrupt.
        """

        def make() -> Image.Image:
            return read_image(path).resize(size, Image.Resampling.LANCZOS)

        try:
            about = path.stat()
        except OSError:
            return make()  # which says what is wrong
        key = (path, about.st_mtime_ns, about.st_size, size)
        # Pillow keeps four bytes a pixel.
        return self._kept.get(key, make, lambda image: 4 * image.width * image.height)
