"""Pictures of an episode by reference: files from which each comes back exactly as the policy saw
it.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.core.video import read_image
from seg_research.episode.transcript import ImageRef


def read_shown(path: Path, size: tuple[int, int]) -> Image.Image:
    """Read a picture at the (width, height) at which the policy saw it.

    Raises:
        UsageError: the file is missing or unreadable.
    """
    picture = read_image(path)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """Names a file for each picture: where it came from, if that gives the very same pixels, else a
    copy in `folder`.

    A search result has no such file: its source is an address, and the server sends a smaller copy.
    """

    folder: Path

    def reference(self, shown: ImageRef) -> dict[str, Any]:
        """Return file and size, as a record holds them."""
        path = Path(shown.source)
        if not (path.is_absolute() and _gives(path, shown.image)):
            path = self._copy(shown.image)
        return {"path": str(path), "size": list(shown.image.size)}

    def _copy(self, picture: Image.Image) -> Path:
        content = io.BytesIO()
        picture.save(content, "PNG")
        path = self.folder.resolve() / f"{hashlib.sha256(content.getvalue()).hexdigest()[:20]}.png"
        if not path.is_file():
            write_atomic(path, content.getvalue())
        return path


def _gives(path: Path, picture: Image.Image) -> bool:
    try:
        mine = read_shown(path, picture.size)
    except UsageError:
        return False
    return mine.mode == picture.mode and ImageChops.difference(mine, picture).getbbox() is None
