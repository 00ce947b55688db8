"""Images a person can judge: each object tinted in a colour of its own, box and points on the key
frame, as PNG or MP4.

Axes: N objects, H rows, W columns, C colours.
"""

# Types of av are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from post_segmentation.propagator import MaskPrompt
from seg_common.errors import UsageError
from seg_common.files import atomic_path
from seg_research.core.video import FramePosition, FrameSource

OBJECT_RGB = (
    (255, 64, 160),
    (64, 156, 255),
    (255, 159, 10),
    (48, 209, 88),
    (191, 90, 242),
    (100, 210, 255),
    (255, 214, 10),
    (172, 142, 104),
)
"""One after another; the ninth object has the first one's again."""
POINT_RIM_RGB = (255, 255, 255)
NEGATIVE_RGB = (255, 69, 58)
MASK_OPACITY = 0.45
FRAMES_PER_S = 15
KEYFRAME_HOLD = 12
"""The key frame is shown for this many frames: its box and points would be gone before the eye
finds them.
"""


def draw_overlay(
    frame: Image.Image, masks_NHW: NDArray[np.bool_], prompts: Sequence[tuple[int, MaskPrompt]] = ()
) -> Image.Image:
    """Return the frame with each mask tinted and outlined in its object's colour, and prompts drawn
    on top.

    Args:
        frame: to draw on; it is not changed.
        masks_NHW: of all objects.
        prompts: with the numbers of their objects; inside points are discs in the object's colour,
            outside points red crosses.
    """
    tinted_HWC = np.asarray(frame.convert("RGB"), np.float32).copy()
    for number, mask_HW in enumerate(masks_NHW):
        tinted_HWC[mask_HW] = (
            tinted_HWC[mask_HW] * (1 - MASK_OPACITY)
            + np.array(_colour(number), np.float32) * MASK_OPACITY
        )
    for number, mask_HW in enumerate(masks_NHW):
        tinted_HWC[_rim(mask_HW)] = _colour(number)
    image = Image.fromarray(tinted_HWC.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    line_px = max(1, round(max(image.size) / 320))
    for number, prompt in prompts:
        if prompt.box is not None:
            box = prompt.box
            draw.rectangle(
                (box.x1, box.y1, max(box.x1, box.x2), max(box.y1, box.y2)),
                outline=_colour(number),
                width=line_px,
            )
        for point in prompt.points:
            draw.circle(
                (point.x, point.y),
                2.5 * line_px,
                fill=_colour(number),
                outline=POINT_RIM_RGB,
                width=line_px,
            )
        for point in prompt.negative_points:
            arm = 2.5 * line_px
            draw.line(
                (point.x - arm, point.y - arm, point.x + arm, point.y + arm),
                fill=NEGATIVE_RGB,
                width=line_px,
            )
            draw.line(
                (point.x - arm, point.y + arm, point.x + arm, point.y - arm),
                fill=NEGATIVE_RGB,
                width=line_px,
            )
    return image


def write_overlay_video(
    path: Path,
    frames: FrameSource,
    read_masks: Callable[[FramePosition], NDArray[np.bool_]],
    prompts: Sequence[MaskPrompt],
) -> None:
    """Write an MP4 of every frame with its masks, which `read_masks` gives as (N, H, W).

    Raises:
        UsageError: a frame cannot be read, or the video cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            _encode(temporary, frames, read_masks, prompts)
        except av.error.FFmpegError as error:
            raise UsageError(f"{path}: cannot encode the overlay video ({error})") from None


def _encode(
    path: Path,
    frames: FrameSource,
    read_masks: Callable[[FramePosition], NDArray[np.bool_]],
    prompts: Sequence[MaskPrompt],
) -> None:
    width_px, height_px = frames.size
    with av.open(str(path), "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(
            codec, rate=Fraction(FRAMES_PER_S), options={"crf": "20"} if codec == "libx264" else {}
        )
        # 4:2:0 video has even sides.
        stream.width, stream.height, stream.pix_fmt = (
            width_px + width_px % 2,
            height_px + height_px % 2,
            "yuv420p",
        )
        for position in map(FramePosition, range(len(frames))):
            shown = [
                (number, prompt)
                for number, prompt in enumerate(prompts)
                if prompt.position == position
            ]
            image = draw_overlay(frames.read(position), read_masks(position), shown)
            padded = Image.new("RGB", (stream.width, stream.height))
            padded.paste(image)
            for _ in range(KEYFRAME_HOLD if shown else 1):
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(np.asarray(padded), format="rgb24"))
                )
        container.mux(stream.encode())


def _colour(number: int) -> tuple[int, int, int]:
    return OBJECT_RGB[number % len(OBJECT_RGB)]


def _rim(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's pixels that touch background or the image's edge."""
    padded = np.pad(mask_HW, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask_HW & ~inside
