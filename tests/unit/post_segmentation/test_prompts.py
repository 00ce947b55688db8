from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from post_segmentation.backend import PromptKind
from post_segmentation.mask_writer import encode_rle
from post_segmentation.prompts import count_unused, mask_folder, read_prompts
from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point, PixelBox, PixelPoint
from seg_research.core.masks import mask_box
from seg_research.core.prediction import PredictedObject
from seg_research.core.rle import Rle
from seg_research.core.video import open_video
from seg_research.metrics import jaccard

ALL_KINDS = frozenset(PromptKind)


def read(clip, *objects, usable=ALL_KINDS):
    return read_prompts(objects, open_video(clip.folder), usable)


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


def test_a_frame_is_found_by_its_number_not_by_counting(clip):
    (prompt,) = read(clip, PredictedObject(8, Norm1000Box(0, 0, 500, 500)))
    assert prompt.position == 2
    with pytest.raises(
        UsageError, match="key frame 2 is not in the video; its 19 frames run from 00000 to 00072"
    ):
        read(clip, PredictedObject(2, Norm1000Box(0, 0, 500, 500)))


def test_thousandths_become_pixels_of_the_video(clip):
    (prompt,) = read(
        clip,
        PredictedObject(
            0,
            Norm1000Box(100, 250, 500, 1000),
            (Norm1000Point(500, 500),),
            (Norm1000Point(0, 1000),),
        ),
    )
    assert prompt.box == PixelBox(12, 20, 60, 79)
    assert (prompt.points, prompt.negative_points) == ((PixelPoint(60, 40),), (PixelPoint(0, 79),))


def test_every_object_has_its_prompt_on_its_own_frame(clip):
    first = PredictedObject(0, Norm1000Box(0, 0, 5, 5))
    second = PredictedObject(8, None, (Norm1000Point(1, 1),))
    assert [prompt.position for prompt in read(clip, first, second)] == [0, 2]
    assert read(clip) == ()


def test_a_mask_of_the_policy_stands_for_the_whole_object_in_the_videos_size(clip):
    half = Rle(40, 60, encode_rle(downscaled(clip.masks[2]))["counts"])
    found = PredictedObject(8, Norm1000Box(0, 0, 5, 5), (Norm1000Point(1, 1),), mask=half)
    (prompt,) = read(clip, found)
    assert (prompt.box, prompt.points, prompt.position) == (None, (), 2)
    assert jaccard(prompt.mask_HW[None], clip.masks[2][None])[0] > 0.9


def downscaled(mask_HW):
    return mask_HW[::2, ::2]


def test_an_empty_mask_alone_is_no_object_and_else_counts_for_nothing(clip):
    empty = Rle(80, 120, encode_rle(np.zeros((80, 120), bool))["counts"])
    assert read(clip, PredictedObject(8, mask=empty)) == ()
    (prompt,) = read(clip, PredictedObject(8, Norm1000Box(0, 0, 500, 500), mask=empty))
    assert prompt.box is not None
    assert prompt.mask_HW is None


def test_a_broken_mask_is_named(clip):
    with pytest.raises(UsageError, match="run lengths"):
        read(clip, PredictedObject(8, mask=Rle(80, 120, "zz")))


def test_a_back_end_that_takes_boxes_alone_gets_the_box_of_a_mask(clip):
    mask = clip.masks[2]
    found = PredictedObject(8, mask=Rle(80, 120, encode_rle(mask)["counts"]))
    (prompt,) = read(clip, found, usable={PromptKind.BOX})
    assert (prompt.box, prompt.mask_HW) == (mask_box(mask), None)


def test_an_object_of_which_nothing_usable_is_known_is_refused(clip):
    with pytest.raises(UsageError, match="only points are known, and the back-end takes boxes"):
        read(clip, PredictedObject(8, points=(Norm1000Point(1, 1),)), usable={PromptKind.BOX})


def test_what_a_back_end_cannot_use_is_counted_by_object():
    box, point = Norm1000Box(0, 0, 5, 5), Norm1000Point(1, 1)
    objects = [PredictedObject(0, box, (point,), (point, point)), PredictedObject(0, box, (point,))]
    usable = {PromptKind.BOX}
    assert count_unused(objects, usable) == {
        PromptKind.POINTS: 2,
        PromptKind.NEGATIVE_POINTS: 1,
    }
    assert not count_unused(objects, ALL_KINDS)
