"""A video as ordered frames. A frame's *id* (the integer in its file name, what the model is shown)
and its *position* (index in decoding order) are different types, because real data sets number
frames with gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NewType, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize

FrameId = NewType("FrameId", int)
FramePosition = NewType("FramePosition", int)

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif"})


class FrameSource(Protocol):
    """Frames of one video in temporal order."""

    @property
    def names(self) -> Sequence[str]:
        """File stems in temporal order; masks of a frame are stored under the same stem."""
        ...

    @property
    def size(self) -> ImageSize:
        """Size of the first frame, in pixels."""
        ...

    def __len__(self) -> int: ...

    def read(self, position: FramePosition) -> Image.Image:
        """Decode one frame as RGB."""
        ...


@dataclass(frozen=True)
class FrameFolder:
    """A folder of images, one a frame, ordered by the integer in the stem (by name where stems are
    not integers).
    """

    path: Path

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Image files in temporal order.

        Raises:
            UsageError: the folder is missing, holds no image, or one frame in two formats.
        """
        if not self.path.is_dir():
            raise UsageError(f"{self.path}: no such video folder")
        found = [
            p
            for p in self.path.iterdir()
            if p.suffix.lower() in FRAME_SUFFIXES and not p.name.startswith(".")
        ]
        if not found:
            raise UsageError(
                f"{self.path}: holds no frames (looked for {', '.join(sorted(FRAME_SUFFIXES))})"
            )
        numbered = all(p.stem.isascii() and p.stem.isdigit() for p in found)
        files = tuple(sorted(found, key=lambda p: (int(p.stem) if numbered else 0, p.name)))
        for earlier, later in pairwise(files):
            if earlier.stem == later.stem:
                raise UsageError(
                    f"{self.path}: frame {earlier.stem} exists twice ({earlier.name}, "
                    f"{later.name}); keep one of the two"
                )
        return files

    @property
    def names(self) -> tuple[str, ...]:
        """File stems in temporal order."""
        return self._names

    @property
    def size(self) -> ImageSize:
        """Size of the first frame, in pixels."""
        return self._size

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(p.stem for p in self.files)

    @cached_property
    def _size(self) -> ImageSize:
        return ImageSize(*self.read(FramePosition(0)).size)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, position: FramePosition) -> Image.Image:
        """Decode one frame as RGB.

        Raises:
            UsageError: the file cannot be decoded.
        """
        return read_image(self.files[position])


def read_image(path: Path) -> Image.Image:
    """Decode an image file as RGB.

    Raises:
        UsageError: the file is missing or corrupt.
    """
    try:
        with Image.open(path) as image:
            # Pillow would clip 16-bit grey at 255 instead of scaling it.
            deep = image.mode.startswith("I;16")
            return (
                Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if deep else image
            ).convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such image") from None
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise UsageError(
            f"{path}: cannot decode this image ({error}); re-extract the frame"
        ) from None


def open_video(path: Path) -> FrameSource:
    """Open a folder of frames or a video file.

    Raises:
        UsageError: nothing is there, or it is neither.
    """
    if path.is_dir():
        return FrameFolder(path)
    if not path.exists():
        raise UsageError(f"{path}: no such video (expected a folder of frames or a video file)")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(
            f"{path}: not a video; expected a folder of frames or one of "
            f"{', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    from seg_research.core.video_file import VideoFile  # PyAV is needed by this leaf alone

    return VideoFile(path)


def frame_id_of(name: str) -> FrameId | None:
    """Read the frame id from a file stem; None where the stem is not an integer."""
    return FrameId(int(name)) if name.isascii() and name.isdigit() and len(name) <= 18 else None


def position_of(frame_id: FrameId, names: Sequence[str]) -> FramePosition | None:
    """Find the position of a frame id by name; None where the video has no such frame."""
    for position, name in enumerate(names):
        if frame_id_of(name) == frame_id:
            return FramePosition(position)
    return None
