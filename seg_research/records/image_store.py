"""Images of an episode by reference: files from which each comes back exactly as the policy saw
it.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.core.video import read_image
from seg_research.episode.transcript import ImageRef
from seg_research.records.schema import ImageRecord


def read_shown(path: Path, size: tuple[int, int]) -> Image.Image:
    """Read an image at the (width, height) at which the policy saw it.

    Raises:
        UsageError: the file is missing or unreadable.
    """
    image = read_image(path)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True, slots=True)
class ImageStore:
    """Names a file for each image: where it came from, if that gives the very same pixels, else a
    copy in `folder`.

    A search result has no such file: its source is an address, and the server sends a smaller copy.
    """

    folder: Path

    def reference(self, shown: ImageRef) -> ImageRecord:
        """Return source, file and size, as a record holds them."""
        path = Path(shown.source)
        if not (path.is_absolute() and _gives(path, shown.image)):
            path = self._copy(shown.image)
        width_px, height_px = shown.image.size
        return ImageRecord(shown.source, str(path), (width_px, height_px))

    def _copy(self, image: Image.Image) -> Path:
        content = io.BytesIO()
        image.save(content, "PNG")
        path = self.folder.resolve() / f"{hashlib.sha256(content.getvalue()).hexdigest()[:20]}.png"
        if not path.is_file():
            write_atomic(path, content.getvalue())
        return path


def _gives(path: Path, image: Image.Image) -> bool:
    try:
        mine = read_shown(path, image.size)
    except UsageError:
        return False
    return mine.mode == image.mode and ImageChops.difference(mine, image).getbbox() is None
