import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from post_segmentation.backends.box import BoxFill
from post_segmentation.backends.sam2_xmem import OneFrame, ThenXMem
from post_segmentation.propagator import FrameMasks, MaskPrompt
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


class Noted(BoxFill):
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
    backend = ThenXMem(keyframe, tracker)
    backend.open(video)
    first = MaskPrompt(
        4, PixelBox(10, 20, 30, 40), (PixelPoint(15, 25),), (PixelPoint(50, 50),), question=1
    )
    backend.prompt(first)
    backend.prompt(MaskPrompt(2, PixelBox(0, 0, 9, 9), question=2))
    backend.prompt(MaskPrompt(4, PixelBox(50, 50, 59, 59), question=3))
    parts = list(backend.propagate())
    assert [names for names, _, _ in keyframe.opened] == [("00016",), ("00008",)]
    assert all(length == 1 for _, length, _ in keyframe.opened)
    assert keyframe.opened[0][2] == video.read(4).tobytes()
    assert [(p.position, p.question) for p in keyframe.prompted] == [(0, 1), (0, 3), (0, 2)]
    assert (keyframe.prompted[0].points, keyframe.prompted[0].negative_points) == (
        first.points,
        first.negative_points,
    )
    assert [(seed.position, seed.question, int(seed.mask_HW.sum())) for seed in tracker.seeds] == [
        (4, 1, 441),
        (2, 2, 100),
        (4, 3, 100),
    ]
    assert tracker.frames is video
    assert len(parts) == len(video)


def test_prompts_are_forgotten_from_round_to_round(video):
    tracker = Carried()
    backend = ThenXMem(Noted(), tracker)
    backend.open(video)
    for number in (1, 2):
        backend.prompt(MaskPrompt(0, PixelBox(0, 0, 9, 9), question=number))
        list(backend.propagate())
        assert [seed.question for seed in tracker.seeds] == [number]
    backend.close()
    with pytest.raises(AssertionError, match="before open"):
        list(backend.propagate())


def test_one_frame_is_a_video(video):
    one = OneFrame(video, 3)
    assert (len(one), one.names, one.size) == (1, ("00012",), video.size)
    assert one.read(0).tobytes() == video.read(3).tobytes()
