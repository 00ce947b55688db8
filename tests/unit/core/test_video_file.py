from pathlib import Path

import av
import numpy as np
import pytest

from seg_common.errors import UsageError
from seg_research.core import video_file
from seg_research.core.geometry import ImageSize
from seg_research.core.video import open_video
from seg_research.core.video_file import VideoFile

NUM_FRAMES = 30
DOG = Path(__file__).parents[4] / "shared/data/clips/dog.mp4"


def shade(position):
    return 20 + 7 * position


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Thirty grey frames, each brighter than the one before, in groups of seven."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 32, "yuv420p", 7
        stream.bit_rate = 8_000_000
        for position in range(NUM_FRAMES):
            image = np.full((32, 48, 3), shade(position), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def shown(video, position):
    return round((float(np.asarray(video.read(position)).mean()) - 20) / 7)


def test_names_count_frames(clip):
    video = open_video(clip)
    assert (len(video), video.names[0], video.names[-1], video.size) == (
        NUM_FRAMES,
        "00000",
        "00029",
        ImageSize(48, 32),
    )


def test_every_order_of_reading_gives_the_right_frames(clip, monkeypatch):
    monkeypatch.setattr(video_file, "WINDOW_FRAMES", 4)
    orders = list(range(NUM_FRAMES)), list(range(NUM_FRAMES))[::-1], [0, 29, 3, 3, 28, 15, 14, 16]
    for order in orders:
        video = VideoFile(clip)
        assert [shown(video, position) for position in order] == order


def test_memory_is_bounded_by_the_window(clip, monkeypatch):
    monkeypatch.setattr(video_file, "WINDOW_FRAMES", 4)
    video = VideoFile(clip)
    for position in range(NUM_FRAMES):
        video.read(position)
        assert len(video._window) <= 4


def test_reading_forwards_decodes_every_frame_once(clip, monkeypatch):
    video = VideoFile(clip)
    len(video)
    opened = []
    original = VideoFile._decode_from
    monkeypatch.setattr(
        VideoFile,
        "_decode_from",
        lambda self, position: opened.append(position) or original(self, position),
    )
    for position in range(NUM_FRAMES):
        video.read(position)
    assert opened == [0]


@pytest.mark.parametrize("position", [-1, NUM_FRAMES])
def test_positions_outside_are_refused(clip, position):
    with pytest.raises(IndexError, match="30 frames"):
        VideoFile(clip).read(position)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_what_cannot_be_decoded_is_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.mp4: cannot decode this video"):
        len(open_video(path))


def test_a_file_without_images_is_refused(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UsageError, match=r"sound\.mp4"):
        len(open_video(path))


@pytest.mark.shared
@pytest.mark.skipif(not DOG.exists(), reason="needs ../shared/data/clips/dog.mp4")
def test_a_real_clip_is_the_same_read_forwards_and_by_seeking():
    forwards, seeking = VideoFile(DOG), VideoFile(DOG)
    assert len(forwards) == 289
    wanted = {
        position: np.asarray(forwards.read(position))
        for position in range(40)
        if position in (3, 20, 39)
    }
    for position in (39, 3, 20):
        assert (np.asarray(seeking.read(position)) == wanted[position]).all()
