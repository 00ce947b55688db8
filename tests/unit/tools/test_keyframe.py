"""The key-frame tool: the frames that were offered, and no other file."""

import pytest
from PIL import Image

from seg_common.errors import InfraError, ToolError
from seg_research.core.video import FrameId
from seg_research.episode.transcript import ImageRef, Outcome, Text
from seg_research.recipes.seg_research.actions import Search, SearchKind, ShowFrame
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.testing.samples import FRAME_SIZE, draw_sample
from seg_research.tools.show_frame import ShowFrameTool


@pytest.fixture
def sample(tmp_path):
    return draw_sample(tmp_path)


def choose(number: int) -> ShowFrame:
    return ShowFrame(FrameId(number))


@pytest.mark.parametrize("side_px", [864, 128])
async def test_the_frame_is_shown_squashed_to_the_square(sample, side_px):
    observation = await ShowFrameTool(SegResearch().texts.show_frame, side_px).run(
        choose(5), sample
    )
    (picture,) = observation.message.images
    assert picture.image.size == (side_px, side_px)
    assert picture.image.mode == "RGB"
    assert (observation.message.role, observation.tool, observation.outcome) == (
        "user",
        "keyframe",
        Outcome.OK,
    )
    assert (picture.source, picture.caption) == (str(sample.frames[1].path), "frame 5")
    assert observation.message.plain() == "Frame 5 in high resolution: <image>"
    assert [type(part) for part in observation.message.parts] == [Text, ImageRef]


async def test_the_picture_is_that_frame_at_its_full_resolution(sample):
    # A column of red at the left edge only survives if the original is read, not the small picture
    # of the prompt.
    path = sample.frames[0].path.with_suffix(".png")
    frame = Image.new("RGB", FRAME_SIZE, "black")
    frame.paste("white", (0, 0, 1, FRAME_SIZE.height_px))
    frame.save(path)
    path.rename(sample.frames[0].path)
    observation = await ShowFrameTool(SegResearch().texts.show_frame, FRAME_SIZE.width_px).run(
        choose(0), sample
    )
    picture = observation.message.images[0].image
    assert picture.getpixel((0, 40)) == (255, 255, 255)
    assert picture.getpixel((2, 40)) == (0, 0, 0)


@pytest.mark.parametrize("number", [1, 11, 999999999])
async def test_a_frame_that_was_not_offered_is_refused_with_the_offered_ones(sample, number):
    (sample.video_path / f"{number:05d}.jpg").write_bytes(sample.frames[0].path.read_bytes())
    with pytest.raises(
        ToolError, match=f"Frame {number} was not among those shown. Choose one of: 0, 5, 10."
    ):
        await ShowFrameTool(SegResearch().texts.show_frame).run(choose(number), sample)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not an image", "empty"])
async def test_a_broken_file_is_a_failure_of_the_data_not_of_the_policy(sample, damage):
    path = sample.frames[1].path
    content = {"truncated": path.read_bytes()[:300], "not an image": b"<html>", "empty": b""}.get(
        damage
    )
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InfraError, match="key frame of sample sample") as caught:
        await ShowFrameTool(SegResearch().texts.show_frame).run(choose(5), sample)
    assert str(path) in str(caught.value)


def test_it_accepts_key_frames_alone():
    tool = ShowFrameTool(SegResearch().texts.show_frame)
    assert tool.accepts(choose(1))
    assert not tool.accepts(Search(SearchKind.TEXT, "frame 1"))
