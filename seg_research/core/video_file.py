"""Frames of a video file, decoded with PyAV. Frame ids equal positions: a file has no names of its own."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import av
from PIL import Image

from seg_research.core.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FramePosition


class VideoFile:
    """Every frame of one video stream, decoded once, in presentation order."""

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is decoded before the first access."""
        self.path = path

    @cached_property
    def _frames(self) -> tuple[Image.Image, ...]:
        try:
            with av.open(str(self.path)) as container:
                frames = tuple(frame.to_image() for frame in container.decode(video=0))
        except (av.FFmpegError, IndexError) as error:
            raise UsageError(f"{self.path}: cannot decode this video ({error})") from None
        if not frames:
            raise UsageError(f"{self.path}: holds no video frames")
        return frames

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Positions as five-digit stems."""
        return tuple(f"{i:05d}" for i in range(len(self._frames)))

    @cached_property
    def size(self) -> ImageSize:
        """Size of the first frame, in pixels."""
        return ImageSize(*self._frames[0].size)

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, position: FramePosition) -> Image.Image:
        """Return one frame as RGB."""
        return self._frames[position].convert("RGB")
