"""One world: a clip and its questions, drawn from a seed and a number, rendered at any size.

Every way to get a world is this module, whether it ends up on disk as part of a benchmark or in
memory as a training example.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from seg_common.errors import InvariantError
from seg_research.core.geometry import ImageSize
from seg_research.core.seeding import derive_seed
from seg_research.core.video import FrameId, FramePosition
from seg_research.data.splits import Split
from seg_research.mini.backgrounds import CLASHES, Background, draw_background
from seg_research.mini.knowledge import KnowledgeImage, Passage
from seg_research.mini.motion import Actor, draw_cast
from seg_research.mini.names import name_of
from seg_research.mini.questions import NUM_NAMES, Question, Sight, draw_questions
from seg_research.mini.sprites import ASPECT, Colour, Look, Pose, draw_sprite, fill_silhouette

FRAME_SIZE = ImageSize(320, 240)
IMAGE_SIZE = ImageSize(256, 256)
NUM_FRAMES = 20

_SKETCH_SIZE = ImageSize(107, 80)
_NUM_TRIES = 400
_ENOUGH_SEEN, _SEEN = 4, 0.4


@dataclass(frozen=True, slots=True)
class Rendering:
    """One frame.

    Attributes:
        rgb_HWC: uint8.
        labels_HW: uint8; 0 is scenery, i + 1 the visible pixels of figure i.
    """

    rgb_HWC: NDArray[np.uint8]
    labels_HW: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class World:
    """A clip and what is asked about it.

    Attributes:
        video: its name.
        cast: the figures, back to front.
        frame_ids: number of each frame, rising, often with gaps.
    """

    video: str
    background: Background
    background_seed: int
    cast: tuple[Actor, ...]
    frame_ids: tuple[FrameId, ...]
    questions: tuple[Question, ...]
    passages: tuple[Passage, ...]
    images: tuple[KnowledgeImage, ...]

    def render(self, position: FramePosition, size: ImageSize = FRAME_SIZE) -> Rendering:
        """Draw one frame; a size of another shape squashes the image, as preparing a sample
        does.
        """
        canvas_HWC = _background_image(self.background, self.background_seed, size).copy()
        labels_HW = np.zeros((size.height_px, size.width_px), np.uint8)
        for index, actor in enumerate(self.cast):
            drawn = draw_sprite(canvas_HWC, actor.look, actor.pose(_time(position)))
            if drawn is not None:
                window, alpha_HW = drawn
                labels_HW[window][alpha_HW >= 0.5] = index + 1
        return Rendering(np.round(canvas_HWC).astype(np.uint8), labels_HW)


def draw_world(seed: int, split: Split, index: int) -> World:
    """Draw a world; equal arguments give equal worlds on every run, in any order."""
    names = [name_of(seed, split, index * NUM_NAMES + slot) for slot in range(NUM_NAMES)]
    background = tuple(Background)[
        (index + derive_seed(seed, "mini", split, "first backdrop")) % len(Background)
    ]
    for attempt in range(_NUM_TRIES):
        rng = np.random.default_rng(derive_seed(seed, "mini", split, index, attempt))
        cast = draw_cast(rng, [colour for colour in Colour if colour not in CLASHES[background]])
        sight = _look_at(cast)
        if ((sight.share_TN >= _SEEN).sum(axis=1) < _ENOUGH_SEEN).any():
            continue
        asked = draw_questions(rng, cast, sight, names)
        if asked is not None:
            return World(
                video=f"{split}_{index:04d}",
                background=background,
                background_seed=derive_seed(seed, "mini", split, index, "backdrop"),
                cast=cast,
                frame_ids=_frame_ids(rng),
                questions=asked.questions,
                passages=asked.passages,
                images=asked.images,
            )
    raise InvariantError(
        f"mini world {split} {index} of seed {seed}: no acceptable cast in {_NUM_TRIES} tries"
    )


def render_image(look: Look, seed: int, size: ImageSize = IMAGE_SIZE) -> NDArray[np.uint8]:
    """Draw a figure alone before a plain background, (H, W, 3) uint8, as the image collection shows
    it.
    """
    rng = np.random.default_rng(seed)
    tint = rng.uniform(214, 236, 3)
    y_HW, x_HW = np.mgrid[-1 : 1 : size.height_px * 1j, -1 : 1 : size.width_px * 1j]
    canvas_HWC = (
        (tint * (1.06 - 0.1 * (x_HW**2 + y_HW**2)[..., None])).clip(0, 255).astype(np.float32)
    )
    # The canvas is square while figures assume 4:3, so they are drawn on a wider one and its middle
    # is kept.
    wide_px = round(size.height_px * ASPECT)
    left = (wide_px - size.width_px) // 2
    wide_HWC = np.pad(
        canvas_HWC, ((0, 0), (left, wide_px - size.width_px - left), (0, 0)), mode="edge"
    )
    draw_sprite(wide_HWC, look, Pose(ASPECT / 2, 0.49, 0.66))
    return np.round(wide_HWC[:, left : left + size.width_px]).astype(np.uint8)


@lru_cache(maxsize=4)
def _background_image(kind: Background, seed: int, size: ImageSize) -> NDArray[np.float32]:
    image_HWC = draw_background(kind, np.random.default_rng(seed), size)
    image_HWC.setflags(write=False)
    return image_HWC


def _time(position: int) -> float:
    return position / (NUM_FRAMES - 1)


def _look_at(cast: tuple[Actor, ...]) -> Sight:
    """Sketch every frame and count who is seen."""
    area_N = np.array(
        [np.count_nonzero(_sketch(actor, Pose(ASPECT / 2, 0.5, actor.diameter))) for actor in cast],
        float,
    )
    visible_TN = np.zeros((NUM_FRAMES, len(cast)))
    inside_TN = np.zeros((NUM_FRAMES, len(cast)))
    for position in range(NUM_FRAMES):
        labels_HW = np.zeros((_SKETCH_SIZE.height_px, _SKETCH_SIZE.width_px), np.uint8)
        for index, actor in enumerate(cast):
            own_HW = _sketch(actor, actor.pose(_time(position)))
            inside_TN[position, index] = np.count_nonzero(own_HW)
            np.copyto(labels_HW, index + 1, where=own_HW.view(np.bool_))
        visible_TN[position] = np.bincount(labels_HW.ravel(), minlength=len(cast) + 1)[1:]
    return Sight(
        share_TN=visible_TN / area_N,
        hidden_TN=1 - visible_TN / np.maximum(inside_TN, 1) - (inside_TN == 0),
        area_N=area_N,
        centre_TN2=np.array(
            [[actor.path.at(_time(position)) for actor in cast] for position in range(NUM_FRAMES)]
        ),
    )


def _sketch(actor: Actor, pose: Pose) -> NDArray[np.uint8]:
    """Return the pixels a figure alone would cover, 0 or 1."""
    own_HW = np.zeros((_SKETCH_SIZE.height_px, _SKETCH_SIZE.width_px), np.uint8)
    fill_silhouette(own_HW, actor.look, pose, 1)
    return own_HW


def _frame_ids(rng: np.random.Generator) -> tuple[FrameId, ...]:
    stride = int(rng.choice([1, 2, 3, 5]))
    start = int(rng.integers(0, 3)) * stride if rng.random() < 0.5 else 0
    return tuple(FrameId(start + stride * position) for position in range(NUM_FRAMES))
