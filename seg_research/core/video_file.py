"""Frames of a video file, decoded with PyAV. Frame ids equal positions: a file has no names of its
own.

Memory is bounded: one pass notes the time stamp of every frame, later reads decode on from where
the last one stopped, or seek. Reading forwards decodes every frame once; reading backwards decodes
each group of pictures (GOP) once per window.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import av
import av.container
import av.error
from cachetools import LRUCache
from PIL import Image

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FramePosition

WINDOW_FRAMES = 32


class VideoFile:
    """Every frame of the first video stream, in presentation order."""

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is decoded before the first access."""
        self.path = path
        self._window: LRUCache[int, Image.Image] = LRUCache(WINDOW_FRAMES)
        self._stream: Generator[tuple[int, Image.Image]] | None = None
        self._next_position = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Positions as five-digit stems."""
        return self._names

    @property
    def size(self) -> ImageSize:
        """Size of the first frame, in pixels."""
        return self._size

    def __len__(self) -> int:
        return len(self._time_stamps)

    def read(self, position: FramePosition) -> Image.Image:
        """Return one frame as RGB.

        Raises:
            IndexError: the video has no such position.
            UsageError: the file cannot be decoded.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"{self.path}: position {position} of {len(self)} frames")
        if position not in self._window:
            self._decode_up_to(position)
        return self._window[position]

    def _decode_up_to(self, position: int) -> None:
        if (
            self._stream is not None
            and self._next_position <= position < self._next_position + WINDOW_FRAMES
            and self._advance_to(position)
        ):
            return
        # A seek may land behind its target in a damaged or oddly cut file; the start is always
        # right.
        for origin in (position, 0):
            self._stream = self._decode_from(origin)
            if self._advance_to(position):
                return
        raise UsageError(
            f"{self.path}: frame {position} could not be decoded again; the file is damaged, "
            "re-encode it"
        )

    def _advance_to(self, position: int) -> bool:
        assert self._stream is not None
        for decoded, image in self._stream:
            self._next_position = decoded + 1
            self._window[decoded] = image
            if decoded >= position:
                return decoded == position
        return False

    def _decode_from(self, position: int) -> Generator[tuple[int, Image.Image]]:
        """Decode from the key frame before a position, or from the start where time stamps cannot
        be trusted.
        """
        stamps = self._time_stamps
        seekable = all(a is not None and b is not None and a < b for a, b in pairwise(stamps))
        positions = {stamp: index for index, stamp in enumerate(stamps)}
        target = stamps[position]
        with self._opened() as container:
            if seekable and target is not None and position > 0:
                container.seek(target, stream=container.streams.video[0], backward=True)
            for count, frame in enumerate(container.decode(video=0)):
                index = positions.get(frame.pts, -1) if seekable else count
                if index >= 0:
                    yield index, Image.fromarray(frame.to_ndarray(format="rgb24"))

    @cached_property
    def _time_stamps(self) -> tuple[int | None, ...]:
        with self._opened() as container:
            stamps = tuple(frame.pts for frame in container.decode(video=0))
        if not stamps:
            raise UsageError(f"{self.path}: holds no video frames")
        return stamps

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"{i:05d}" for i in range(len(self)))

    @cached_property
    def _size(self) -> ImageSize:
        return ImageSize(*self.read(FramePosition(0)).size)

    @contextmanager
    def _opened(self) -> Generator[av.container.InputContainer]:
        try:
            with av.open(str(self.path)) as container:
                yield container
        except (av.error.FFmpegError, IndexError) as error:
            raise UsageError(
                f"{self.path}: cannot decode this video ({error}); re-encode it"
            ) from None
