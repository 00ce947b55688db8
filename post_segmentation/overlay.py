"""Pictures a person can judge: the mask tinted over its frame, box and points on the key frame, as PNG or MP4."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from post_segmentation.propagator import MaskPrompt
from seg_research.core.errors import UsageError
from seg_research.core.files import atomic_path
from seg_research.core.masks import read_mask
from seg_research.core.video import FramePosition, FrameSource

MASK_RGB = (255, 64, 160)
BOX_RGB = (255, 214, 10)
POINT_RGB = (48, 209, 88)
NEGATIVE_RGB = (255, 69, 58)
MASK_OPACITY = 0.45
FRAMES_PER_S = 15
KEYFRAME_HOLD = 12
"""The key frame is shown for this many frames: its box and points would be gone before the eye finds them."""


def draw_overlay(frame: Image.Image, mask_HW: NDArray[np.bool_], prompts: Sequence[MaskPrompt] = ()) -> Image.Image:
    """Return the frame with the mask tinted and outlined, and the prompts (those of this frame) drawn on top."""
    pixels_HWC = np.asarray(frame.convert("RGB"), np.float32)
    colour = np.array(MASK_RGB, np.float32)
    tinted_HWC = np.where(mask_HW[..., None], pixels_HWC * (1 - MASK_OPACITY) + colour * MASK_OPACITY, pixels_HWC)
    tinted_HWC[_rim(mask_HW)] = colour
    picture = Image.fromarray(tinted_HWC.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    line_px = max(1, round(max(picture.size) / 320))
    for prompt in prompts:
        if prompt.box is not None:
            box = prompt.box
            draw.rectangle((box.x1, box.y1, max(box.x1, box.x2), max(box.y1, box.y2)), outline=BOX_RGB, width=line_px)
        for points, fill in ((prompt.points, POINT_RGB), (prompt.negative_points, NEGATIVE_RGB)):
            for point in points:
                draw.circle((point.x, point.y), 2.5 * line_px, fill=fill, outline=(255, 255, 255), width=line_px)
    return picture


def write_overlay_video(path: Path, frames: FrameSource, mask_folder: Path, prompts: Sequence[MaskPrompt]) -> None:
    """Write an MP4 of every frame with its mask from disk.

    Raises:
        UsageError: a frame or mask cannot be read, or the video cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            _encode(temporary, frames, mask_folder, prompts)
        except av.error.FFmpegError as error:
            raise UsageError(f"{path}: cannot encode the overlay video ({error})") from None


def _encode(path: Path, frames: FrameSource, mask_folder: Path, prompts: Sequence[MaskPrompt]) -> None:
    width_px, height_px = frames.size
    with av.open(str(path), "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(FRAMES_PER_S), options={"crf": "20"} if codec == "libx264" else {})
        # 4:2:0 video has even sides.
        stream.width, stream.height, stream.pix_fmt = width_px + width_px % 2, height_px + height_px % 2, "yuv420p"
        for index, name in enumerate(frames.names):
            position = FramePosition(index)
            shown = [prompt for prompt in prompts if prompt.position == position]
            picture = draw_overlay(frames.read(position), read_mask(mask_folder / f"{name}.png"), shown)
            padded = Image.new("RGB", (stream.width, stream.height))
            padded.paste(picture)
            for _ in range(KEYFRAME_HOLD if shown else 1):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(padded), format="rgb24")))
        container.mux(stream.encode())


def _rim(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's pixels that touch background or the image's edge."""
    padded = np.pad(mask_HW, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask_HW & ~inside
