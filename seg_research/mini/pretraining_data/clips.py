"""Clips of worlds as a model is shown them: four frames as thumbnails and in high resolution, and
where every figure is.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seg_common.files import write_atomic
from seg_research.core.video import FramePosition
from seg_research.data.parallel import Progress, map_ordered
from seg_research.data.splits import Split
from seg_research.mini.grid import FRAME_PX, KEYFRAME_PX
from seg_research.mini.pretraining_data.scenes import VisibleFigure
from seg_research.mini.sprites import Look
from seg_research.mini.world import NUM_FRAMES, draw_world

NUM_OFFERED = 4
_SEED = 9_000_001
"""Of the worlds that training examples show; benchmarks have small seeds."""

_FEWEST_PIXELS, _VISIBLE_SHARE, _GOOD_SHARE = 40, 0.25, 0.6


@dataclass(frozen=True, slots=True)
class Clip:
    """T frames, N figures.

    Attributes:
        frames_THWC, keyframes_THWC: thumbnails and high resolution, uint8.
        boxes_TN4, points_TN2: in thousandths; 0 where a figure is not seen.
        area_TN: visible pixels of the original frame.
        pairs: number of the pair each figure travels in; None alone.
    """

    frames_THWC: NDArray[np.uint8]
    keyframes_THWC: NDArray[np.uint8]
    boxes_TN4: NDArray[np.int16]
    points_TN2: NDArray[np.int16]
    area_TN: NDArray[np.float32]
    frame_ids: tuple[int, ...]
    looks: tuple[Look, ...]
    pairs: tuple[int | None, ...]
    diameters: tuple[float, ...]

    def seen(self, frame: int) -> list[VisibleFigure]:
        """Return the figures of which a fair part is seen in a frame."""
        fair_N = self.area_TN[frame] > _VISIBLE_SHARE * self.area_TN.max(axis=0)
        return [self.place(frame, int(n)) for n in np.flatnonzero(fair_N)]

    def place(self, frame: int, figure: int) -> VisibleFigure:
        """Return where a figure is in a frame."""
        left, top, right, bottom = (float(v) for v in self.boxes_TN4[frame, figure])
        x, y = (float(v) for v in self.points_TN2[frame, figure])
        return VisibleFigure(self.looks[figure], (left, top, right, bottom), (x, y))

    def ever_seen(self) -> list[int]:
        """Return the figures that some frame shows."""
        return [int(n) for n in np.flatnonzero(self.area_TN.max(axis=0) > 0)]

    def good_frames(self, figure: int) -> list[int]:
        """Return the frames that show a figure well."""
        area_T = self.area_TN[:, figure]
        return [int(t) for t in np.flatnonzero(area_T > _GOOD_SHARE * area_T.max())]


def draw_clip(index: int) -> Clip:
    """Draw the clip with this number."""
    import cv2

    cv2.setNumThreads(1)
    world = draw_world(_SEED, Split.TRAIN, index)
    positions: NDArray[np.int64] = np.sort(
        np.random.default_rng([_SEED, index]).choice(NUM_FRAMES, NUM_OFFERED, replace=False)
    )
    count = len(world.cast)
    boxes, points = (
        np.zeros((NUM_OFFERED, count, 4), np.int16),
        np.zeros((NUM_OFFERED, count, 2), np.int16),
    )
    area = np.zeros((NUM_OFFERED, count), np.float32)
    small: list[NDArray[np.uint8]] = []
    large: list[NDArray[np.uint8]] = []
    for t, position in enumerate(positions):
        rendering = world.render(FramePosition(int(position)))
        image = Image.fromarray(rendering.rgb_HWC)
        for side, kept in ((FRAME_PX, small), (KEYFRAME_PX, large)):
            kept.append(np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)))
        thousandth_px = np.array([image.width, image.height]) / 1000
        for n in range(count):
            own_HW = rendering.labels_HW == n + 1
            if np.count_nonzero(own_HW) < _FEWEST_PIXELS:
                continue
            rows, columns = np.flatnonzero(own_HW.any(1)), np.flatnonzero(own_HW.any(0))
            depth_HW = cv2.distanceTransform(np.pad(own_HW.astype(np.uint8), 1), cv2.DIST_L2, 3)[
                1:-1, 1:-1
            ]
            y, x = np.unravel_index(depth_HW.argmax(), depth_HW.shape)
            area[t, n] = np.count_nonzero(own_HW)
            boxes[t, n] = np.round(
                [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] / np.tile(thousandth_px, 2)
            )
            points[t, n] = np.round([x + 0.5, y + 0.5] / thousandth_px)
    return Clip(
        np.stack(small),
        np.stack(large),
        boxes,
        points,
        area,
        tuple(int(world.frame_ids[int(p)]) for p in positions),
        tuple(actor.look for actor in world.cast),
        tuple(actor.pair for actor in world.cast),
        tuple(actor.diameter for actor in world.cast),
    )


def draw_clips(
    count: int, store: Path, workers: int = 1, progress: Progress | None = None
) -> list[Clip]:
    """Draw clips 0, 1, … and keep them in a file, which is read where it holds enough."""
    if store.is_file():
        clips: list[Clip] = pickle.loads(store.read_bytes())
        if len(clips) >= count:
            return clips[:count]
    clips = list(map_ordered(partial(draw_clip), range(count), workers, progress))
    write_atomic(store, pickle.dumps(clips, protocol=5))
    return clips
