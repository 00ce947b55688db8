"""Samples drawn on the spot: a few small JPEG frames of a growing square, with exact ground truth.

The target is absent from the last frame, so that a wrong choice of key frame can be made. Frame ids
have gaps, as real data sets do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from seg_research.core.geometry import (
    ImageSize,
    PixelBox,
    PixelPoint,
    box_to_norm1000,
    point_to_norm1000,
)
from seg_research.core.video import FrameId
from seg_research.data.sample import Frame, GroundTruth, Sample, TargetOnFrame

FRAME_SIZE = ImageSize(80, 60)
SHOWN_SIZE = ImageSize(32, 32)
FRAME_IDS = (0, 5, 10)


def draw_sample(
    folder: Path,
    sample_id: str = "sample",
    *,
    frame_ids: Sequence[int] = FRAME_IDS,
    question: str = "Please find 'the square that Velmora paints' in the provided video.",
    ability: str = "one-hop",
    steps: tuple[str, ...] = ("colour of Velmora",),
) -> Sample:
    """Draw a sample's frames below `folder` and return it; the target is largest on the last frame
    but one, and absent from the last.
    """
    video = folder / sample_id
    video.mkdir(parents=True)
    frames: list[Frame] = []
    squares: dict[FrameId, PixelBox] = {}
    for position, number in enumerate(frame_ids):
        image = Image.new("RGB", FRAME_SIZE, (90, 120, 60))
        if position < len(frame_ids) - 1:
            side_px = 12 + 6 * position
            square = PixelBox(20, 15, 20 + side_px, 15 + side_px)
            ImageDraw.Draw(image).rectangle(
                (square.x1, square.y1, square.x2, square.y2), fill=(200, 40, 40)
            )
            squares[FrameId(number)] = square
        path = video / f"{number:05d}.jpg"
        image.save(path)
        frames.append(Frame(FrameId(number), path, SHOWN_SIZE))
    truth = GroundTruth.of_one(
        {frame_id: _truth(square, squares) for frame_id, square in squares.items()}, steps
    )
    return Sample(
        sample_id, question, video, tuple(frames), ability, f"Search_RVOS_{ability}", truth
    )


def _truth(square: PixelBox, squares: dict[FrameId, PixelBox]) -> TargetOnFrame:
    share = _area_px(square) / max(map(_area_px, squares.values()))
    middle = PixelPoint((square.x1 + square.x2) / 2, (square.y1 + square.y2) / 2)
    return TargetOnFrame(
        box_to_norm1000(square, FRAME_SIZE), point_to_norm1000(middle, FRAME_SIZE), share, share
    )


def _area_px(square: PixelBox) -> float:
    return (square.x2 - square.x1 + 1) * (square.y2 - square.y1 + 1)
