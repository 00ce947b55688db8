"""Predicted and true masks on a few frames of a video."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from seg_research.core.masks import Mask
from seg_research.core.video import FramePosition, FrameSource, frame_id_of
from seg_research.metrics.region import jaccard
from seg_research.viewer.text import shorten
from seg_research.viewer.thumbnails import Thumbnail, embed, overlay_masks
from seg_research.viewer.truth import TruthView, find_mask

NUM_FRAMES = 6
WIDTH_PX = 264
KEYFRAME_CAPTION = "key frame"


class MaskStrip(NamedTuple):
    """Frames with their masks.

    Attributes:
        mean_j: over those frames that have a truth, a missing prediction scoring 0; None without.
        num_predicted: frames with a predicted mask.
    """

    images: tuple[Thumbnail, ...] = ()
    mean_j: float | None = None
    num_predicted: int = 0


def draw_masks(
    folder: Path | None, truth: TruthView, video: FrameSource, keyframe: FramePosition | None
) -> MaskStrip:
    """Draw masks on frames spread over the video."""
    images: list[Thumbnail] = []
    scores: list[float] = []
    num_predicted = 0
    for position in spread(len(video), NUM_FRAMES, keyframe):
        stem = video.names[position]
        predicted, right = find_mask(folder, stem), truth.mask(stem)
        num_predicted += predicted is not None
        label = stem if frame_id_of(stem) is None else str(frame_id_of(stem))
        if right is not None:
            scores.append(_j(right, predicted))
            label += f" · J {100 * scores[-1]:.0f}"
        elif predicted is None:
            label += " · no mask"
        frame = overlay_masks(video.read(position), predicted, right, WIDTH_PX)
        kind = KEYFRAME_CAPTION if position == keyframe else "frame"
        images.append(embed(frame, WIDTH_PX, f"{kind} {shorten(label, 40)}", quality=72))
    mean_j = sum(scores) / len(scores) if scores else None
    return MaskStrip(tuple(images), mean_j, num_predicted)


def spread(num_frames: int, count: int, keyframe: int | None) -> list[FramePosition]:
    """Choose positions evenly over a video, first and last among them, the key frame in place of
    the nearest.
    """
    count = min(count, num_frames)
    positions = [round(i * (num_frames - 1) / max(1, count - 1)) for i in range(count)]
    if keyframe is not None and keyframe not in positions:
        nearest = min(range(count), key=lambda i: abs(positions[i] - keyframe))
        positions[nearest] = keyframe
    return [FramePosition(position) for position in positions]


def _j(right_HW: Mask, predicted_HW: Mask | None) -> float:
    if predicted_HW is None:
        predicted_HW = np.zeros_like(right_HW)
    if right_HW.shape != predicted_HW.shape:
        return 0.0
    return float(jaccard(right_HW[None], predicted_HW[None])[0])
