import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from post_segmentation.box_propagator import BoxPropagator
from post_segmentation.propagator import FrameMasks, MaskPrompt
from post_segmentation.xmem.propagator import OneFrame, XMemPropagator
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.video import open_video


class Carried:
    """A tracker that only notes what it was given."""

    def track(self, frames, seeds):
        self.frames, self.seeds = frames, seeds
        for position in range(len(frames)):
            yield FrameMasks(
                position, np.stack([seed.mask_HW for seed in seeds]), tuple(range(len(seeds)))
            )


class Noted(BoxPropagator):
    """Fills boxes, and notes which videos it was opened on."""

    def __init__(self):
        super().__init__()
        self.opened, self.prompted = [], []

    def open(self, frames):
        super().open(frames)
        self.opened.append((tuple(frames.names), len(frames), frames.read(0).tobytes()))

    def prompt(self, prompt):
        super().prompt(prompt)
        self.prompted.append(prompt)


@pytest.fixture
def video(clip):
    return open_video(clip.folder)


def test_the_key_frame_backend_sees_single_frames_and_whole_prompts(video):
    keyframe, tracker = Noted(), Carried()
    backend = XMemPropagator(keyframe, tracker)
    backend.open(video)
    first = MaskPrompt(
        4, PixelBox(10, 20, 30, 40), (PixelPoint(15, 25),), (PixelPoint(50, 50),), group_id=1
    )
    backend.prompt(first)
    backend.prompt(MaskPrompt(2, PixelBox(0, 0, 9, 9), group_id=2))
    backend.prompt(MaskPrompt(4, PixelBox(50, 50, 59, 59), group_id=3))
    parts = list(backend.propagate())
    assert [names for names, _, _ in keyframe.opened] == [("00016",), ("00008",)]
    assert all(length == 1 for _, length, _ in keyframe.opened)
    assert keyframe.opened[0][2] == video.read(4).tobytes()
    assert [(p.position, p.group_id) for p in keyframe.prompted] == [(0, 1), (0, 3), (0, 2)]
    assert (keyframe.prompted[0].points, keyframe.prompted[0].negative_points) == (
        first.points,
        first.negative_points,
    )
    assert [(seed.position, seed.group_id, int(seed.mask_HW.sum())) for seed in tracker.seeds] == [
        (4, 1, 441),
        (2, 2, 100),
        (4, 3, 100),
    ]
    assert tracker.frames is video
    assert len(parts) == len(video)


def test_a_mask_needs_no_key_frame_backend(video):
    keyframe, tracker = Noted(), Carried()
    backend = XMemPropagator(keyframe, tracker)
    backend.open(video)
    mask = np.zeros((80, 120), bool)
    mask[5:9, 5:9] = True
    backend.prompt(MaskPrompt(4, mask_HW=mask, group_id=1))
    backend.prompt(MaskPrompt(4, PixelBox(0, 0, 9, 9), group_id=2))
    list(backend.propagate())
    assert [prompt.group_id for prompt in keyframe.prompted] == [2]
    assert [(seed.group_id, int(seed.mask_HW.sum())) for seed in tracker.seeds] == [
        (1, 16),
        (2, 100),
    ]


def test_prompts_are_forgotten_from_round_to_round(video):
    tracker = Carried()
    backend = XMemPropagator(Noted(), tracker)
    backend.open(video)
    for number in (1, 2):
        backend.prompt(MaskPrompt(0, PixelBox(0, 0, 9, 9), group_id=number))
        list(backend.propagate())
        assert [seed.group_id for seed in tracker.seeds] == [number]
    backend.close()
    with pytest.raises(AssertionError, match="before open"):
        list(backend.propagate())


def test_one_frame_is_a_video(video):
    one = OneFrame(video, 3)
    assert (len(one), one.names, one.size) == (1, ("00012",), video.size)
    assert one.read(0).tobytes() == video.read(3).tobytes()
