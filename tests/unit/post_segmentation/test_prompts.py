from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from post_segmentation.prompts import mask_folder, read_prompts
from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point, PixelBox, PixelPoint
from seg_research.core.video import open_video
from seg_research.records.reader import Keyframe, PredictedObject, Prediction


def predict(clip, frame_id, *objects):
    return Prediction("a", clip.folder, "q", keyframe=Keyframe(frame_id, 99), objects=objects)


def test_subfolders_are_allowed():
    assert mask_folder(Path("/out"), "refyt_x/0") == Path("/out/refyt_x/0")


@pytest.mark.parametrize(
    "sample_id",
    [
        "",
        "/etc",
        "..",
        "a/../../b",
        "a//b",
        "a/",
        ".hidden",
        "a/.b",
        "a\\..\\b",
        "a\nb",
        "a\0b",
        "\ud800",
        "x" * 300,
    ],
)
def test_ids_that_are_no_names_are_refused(sample_id):
    with pytest.raises(UsageError, match="cannot name a folder"):
        mask_folder(Path("/out"), sample_id)


@given(st.text(st.sampled_from("ab./\\ ~\n"), max_size=12))
def test_no_id_leads_out_of_the_folder(sample_id):
    try:
        folder = mask_folder(Path("/out"), sample_id)
    except UsageError:
        return
    assert Path("/out") in folder.resolve().parents


def test_a_key_frame_is_found_by_its_number_not_by_counting(clip):
    region = PredictedObject(Norm1000Box(0, 0, 500, 500))
    (prompt,) = read_prompts(predict(clip, 8, region), open_video(clip.folder))
    assert prompt.position == 2
    with pytest.raises(
        UsageError, match="key frame 2 is not in the video; its 19 frames run from 00000 to 00072"
    ):
        read_prompts(predict(clip, 2, region), open_video(clip.folder))


def test_thousandths_become_pixels_of_the_video(clip):
    region = PredictedObject(
        Norm1000Box(100, 250, 500, 1000), (Norm1000Point(500, 500),), (Norm1000Point(0, 1000),)
    )
    (prompt,) = read_prompts(predict(clip, 0, region), open_video(clip.folder))
    assert prompt.box == PixelBox(12, 20, 60, 79)
    assert (prompt.points, prompt.negative_points) == ((PixelPoint(60, 40),), (PixelPoint(0, 79),))


def test_every_object_has_its_prompt_and_no_answer_has_none(clip):
    regions = (
        PredictedObject(Norm1000Box(0, 0, 5, 5)),
        PredictedObject(None, (Norm1000Point(1, 1),)),
    )
    assert len(read_prompts(predict(clip, 0, *regions), open_video(clip.folder))) == 2
    assert (
        read_prompts(Prediction("a", clip.folder, "q", objects=regions), open_video(clip.folder))
        == ()
    )
