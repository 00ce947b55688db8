import numpy as np
import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FrameFolder, frame_id_of, open_video, position_of


def write_frames(folder, names, size=(6, 4)):
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        Image.new("RGB", size, (10 * value, 0, 0)).save(folder / name)
    return folder


def test_frames_are_ordered_by_number_not_by_text(tmp_path):
    folder = FrameFolder(write_frames(tmp_path / "v", ["10.png", "9.png", "00100.png"]))
    assert folder.names == ("9", "10", "00100")
    assert (len(folder), folder.size) == (3, ImageSize(6, 4))
    assert folder.read(0).getpixel((0, 0)) == (10, 0, 0)


def test_frames_without_numbers_are_ordered_by_name(tmp_path):
    assert FrameFolder(write_frames(tmp_path / "v", ["b.jpg", "a.jpg", "10.jpg"])).names == (
        "10",
        "a",
        "b",
    )


def test_other_files_are_not_frames(tmp_path):
    folder = write_frames(tmp_path / "v", ["1.png", ".2.png"])
    (folder / "notes.txt").write_text("x")
    assert FrameFolder(folder).names == ("1",)


def test_a_frame_id_is_found_by_name_where_numbers_have_gaps():
    names = ("00000", "00004", "00008")
    assert position_of(8, names) == 2
    assert position_of(2, names) is None


@pytest.mark.parametrize(
    ("name", "frame_id"), [("00012", 12), ("x12", None), ("", None), ("٣", None), ("9" * 30, None)]
)
def test_frame_ids_are_plain_numbers(name, frame_id):
    assert frame_id_of(name) == frame_id


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for path, message in (("none", "no such video"), ("notes.txt", "not a video")):
        with pytest.raises(UsageError, match=message):
            open_video(tmp_path / path)
    with pytest.raises(UsageError, match="holds no frames"):
        len(open_video(tmp_path / "empty"))


def test_one_frame_in_two_formats_is_refused(tmp_path):
    folder = FrameFolder(write_frames(tmp_path / "v", ["00001.png", "00001.jpg"]))
    with pytest.raises(UsageError, match="frame 00001 exists twice"):
        len(folder)


def test_a_corrupt_frame_is_named(tmp_path):
    folder = write_frames(tmp_path / "v", ["00000.png"])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        folder / "00001.jpg"
    )
    (folder / "00001.jpg").write_bytes((folder / "00001.jpg").read_bytes()[:500])
    with pytest.raises(UsageError, match=r"00001\.jpg: cannot decode"):
        FrameFolder(folder).read(1)
