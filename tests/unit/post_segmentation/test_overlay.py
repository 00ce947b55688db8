import av
import numpy as np
from PIL import Image

from post_segmentation.overlay import (
    KEYFRAME_HOLD,
    NEGATIVE_RGB,
    OBJECT_RGB,
    draw_overlay,
    write_overlay_video,
)
from post_segmentation.propagator import MaskPrompt
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.video import open_video

GREY = (200, 200, 200)


def block(size, rows, columns):
    mask = np.zeros((size[1], size[0]), bool)
    mask[rows, columns] = True
    return mask


def test_each_object_has_its_colour_and_its_prompt_is_drawn_where_it_is():
    masks = np.stack(
        [
            block((80, 60), slice(20, 40), slice(30, 50)),
            block((80, 60), slice(45, 55), slice(60, 70)),
        ]
    )
    first = MaskPrompt(0, PixelBox(10, 5, 70, 55), (PixelPoint(40, 30),), (PixelPoint(20, 10),))
    pixels = np.asarray(
        draw_overlay(
            Image.new("RGB", (80, 60), GREY),
            masks,
            ((0, first), (1, MaskPrompt(0, None, (PixelPoint(75, 10),)))),
        )
    )
    assert tuple(pixels[20, 35]) == OBJECT_RGB[0]
    assert tuple(pixels[25, 45]) not in (GREY, OBJECT_RGB[0])
    assert tuple(pixels[45, 65]) == OBJECT_RGB[1]
    assert tuple(pixels[5, 40]) == OBJECT_RGB[0], "the first object's box"
    assert tuple(pixels[30, 40]) == OBJECT_RGB[0], "its point"
    assert tuple(pixels[10, 20]) == NEGATIVE_RGB
    assert tuple(pixels[10, 75]) == OBJECT_RGB[1]
    assert tuple(pixels[57, 75]) == GREY


def test_any_number_of_objects_is_drawn():
    masks = np.stack([block((80, 60), slice(0, 9), slice(8 * n, 8 * n + 6)) for n in range(9)])
    pixels = np.asarray(draw_overlay(Image.new("RGB", (80, 60), GREY), masks))
    assert tuple(pixels[0, 0]) == tuple(pixels[0, 64]) == OBJECT_RGB[0]


def test_without_mask_and_prompt_the_frame_is_unchanged():
    frame = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8))
    assert (np.asarray(draw_overlay(frame, np.zeros((1, 9, 7), bool))) == np.asarray(frame)).all()


def test_the_video_shows_every_frame_and_holds_the_key_frame(clip, tmp_path):
    path = tmp_path / "a" / "v.mp4"
    write_overlay_video(
        path,
        open_video(clip.folder),
        lambda position: clip.masks[position][None],
        (MaskPrompt(2, PixelBox(5, 5, 20, 20)),),
    )
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == len(clip.names) - 1 + KEYFRAME_HOLD
    assert frames[0].shape == (80, 120, 3)


def test_odd_sizes_are_padded(tmp_path):
    Image.new("RGB", (33, 21)).save(tmp_path / "0.png")
    write_overlay_video(
        tmp_path / "v.mp4", open_video(tmp_path), lambda _: np.zeros((1, 21, 33), bool), ()
    )
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (34, 22)
