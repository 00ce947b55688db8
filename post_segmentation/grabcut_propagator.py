"""A back-end without weights: GrabCut on the key frame, then frame by frame in both directions.
Axes: N objects, H rows, W columns.

Each step looks for the object in two ways (`object_tracker`). The *template* compares with the key
frame: exact and free of drift while the shape holds, and it sees what is hidden and what has left
the image. Where too little agrees (people, animals), the *flow* carries the last mask along and
colours decide what of it is still the object; where the camera stands still, so does what moves at
all. GrabCut then moves the edge onto the image's own. An object that was lost is looked for where
it vanished, ever wider. Large frames are worked on at `MAX_SIDE_PX`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from post_segmentation.box_propagator import prompt_box
from post_segmentation.grabcut_mask import Bgr, cut_box
from post_segmentation.object_tracker import (
    ObjectState,
    WorkingFrame,
    follow_object,
    learn_object,
)
from post_segmentation.prompts import check_frame_size
from post_segmentation.propagator import FrameMasks, MaskPrompt
from post_segmentation.static_background import NUM_SAMPLES, StaticBackground
from seg_research.core.geometry import ImageSize, PixelBox, PixelPoint
from seg_research.core.masks import Mask
from seg_research.core.video import FramePosition, FrameSource

MAX_SIDE_PX = 480


class GrabCutPropagator:
    """Cut the object out of its box and follow it."""

    def __init__(self) -> None:
        """Hold no video yet."""
        self._frames: FrameSource | None = None
        self._background: StaticBackground | None = None
        self._prompts: list[MaskPrompt] = []

    def open(self, frames: FrameSource) -> None:
        # One prediction a process is faster than several threads a frame, and the same to the last
        # bit.
        cv2.setNumThreads(1)
        self._frames, self._prompts = frames, []
        sampled = sorted(
            {round(p) for p in np.linspace(0, len(frames) - 1, min(NUM_SAMPLES, len(frames)))}
        )
        self._background = StaticBackground.of(
            [_read(frames, FramePosition(position)) for position in sampled]
        )

    def prompt(self, prompt: MaskPrompt) -> None:
        self._prompts.append(prompt)

    def propagate(self) -> Iterator[FrameMasks]:
        assert self._frames is not None, "propagate before open"
        prompts, self._prompts = self._prompts, []
        by_position: defaultdict[FramePosition, list[int]] = defaultdict(list)
        for number, prompt in enumerate(prompts):
            by_position[prompt.position].append(number)
        for start, numbers in by_position.items():
            for position, masks_NHW in self._follow(
                self._frames, start, [prompts[number] for number in numbers]
            ):
                yield FrameMasks(position, masks_NHW, tuple(numbers))

    def _follow(
        self, frames: FrameSource, start: FramePosition, prompts: Sequence[MaskPrompt]
    ) -> Iterator[tuple[FramePosition, NDArray[np.bool_]]]:
        """Follow the objects of one key frame."""
        key_frame = _read_frame(frames, start, self._background)
        masks = [_key_mask(key_frame, prompt, frames.size) for prompt in prompts]
        objects = [learn_object(key_frame, mask_HW, self._background) for mask_HW in masks]
        origins = [ObjectState.on_key_frame(mask_HW) for mask_HW in masks]
        key_masks_NHW = _full_size(origins, frames.size)
        for number, prompt in enumerate(prompts):
            if prompt.mask_HW is not None:
                key_masks_NHW[number] = prompt.mask_HW
        yield start, key_masks_NHW
        for positions in (range(start, len(frames)), range(start, -1, -1)):
            states, before = origins, key_frame
            for _, position in pairwise(positions):
                frame = _read_frame(frames, FramePosition(position), self._background)
                states = [
                    follow_object(known, state, before, frame)
                    for known, state in zip(objects, states, strict=True)
                ]
                yield FramePosition(position), _full_size(states, frames.size)
                before = frame

    def close(self) -> None:
        self._frames, self._background, self._prompts = None, None, []


def _read_frame(
    frames: FrameSource, position: FramePosition, background: StaticBackground | None
) -> WorkingFrame:
    bgr = _read(frames, position)
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return WorkingFrame(bgr, grey, None if background is None else background.changed(bgr))


def _read(frames: FrameSource, position: FramePosition) -> Bgr:
    image = frames.read(position)
    check_frame_size(image.size, frames, position)
    bgr = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
    factor = _working_factor(frames.size)
    if factor < 1:
        bgr = cv2.resize(bgr, _working_size(frames.size), interpolation=cv2.INTER_AREA)
    return bgr.astype(np.uint8, copy=False)


def _working_factor(size: ImageSize) -> float:
    return min(1.0, MAX_SIDE_PX / max(size))


def _working_size(size: ImageSize) -> ImageSize:
    factor = _working_factor(size)
    return ImageSize(max(1, round(size.width_px * factor)), max(1, round(size.height_px * factor)))


def _full_size(states: list[ObjectState], size: ImageSize) -> NDArray[np.bool_]:
    masks = [state.mask_HW for state in states]
    if _working_factor(size) < 1:
        masks = [
            cv2.resize(mask_HW.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
            for mask_HW in masks
        ]
    return np.stack(masks)


def _key_mask(frame: WorkingFrame, prompt: MaskPrompt, size: ImageSize) -> Mask:
    """Return the object on its key frame, at working size: as given, or cut out of its box."""
    width_px, height_px = _working_size(size)
    if prompt.mask_HW is not None:
        shares_HW = cv2.resize(
            prompt.mask_HW.astype(np.float32), (width_px, height_px), interpolation=cv2.INTER_AREA
        )
        return shares_HW >= 0.5
    sx, sy = width_px / size.width_px, height_px / size.height_px
    box = prompt_box(prompt)
    scaled = PixelBox(box.x1 * sx, box.y1 * sy, box.x2 * sx, box.y2 * sy)
    points, negative_points = (
        [PixelPoint(point.x * sx, point.y * sy) for point in listed]
        for listed in (prompt.points, prompt.negative_points)
    )
    return cut_box(frame.bgr, scaled, points, negative_points, frame.changed_HW)
