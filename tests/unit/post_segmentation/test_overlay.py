import av
import numpy as np
from PIL import Image

from post_segmentation.overlay import BOX_RGB, KEYFRAME_HOLD, MASK_RGB, POINT_RGB, draw_overlay, write_overlay_video
from post_segmentation.propagator import MaskPrompt
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.masks import write_mask
from seg_research.core.video import open_video


def test_mask_box_and_point_are_drawn_where_they_are():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    prompt = MaskPrompt(0, PixelBox(10, 5, 70, 55), (PixelPoint(40, 30),))
    pixels = np.asarray(draw_overlay(Image.new("RGB", (80, 60), (200, 200, 200)), mask, (prompt,)))
    assert tuple(pixels[20, 35]) == MASK_RGB
    assert tuple(pixels[25, 45]) not in ((200, 200, 200), MASK_RGB)
    assert tuple(pixels[5, 40]) == BOX_RGB
    assert tuple(pixels[30, 40]) == POINT_RGB
    assert tuple(pixels[50, 60]) == (200, 200, 200)


def test_without_mask_and_prompt_the_frame_is_unchanged():
    frame = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8))
    assert (np.asarray(draw_overlay(frame, np.zeros((9, 7), bool))) == np.asarray(frame)).all()


def test_the_video_shows_every_frame_and_holds_the_key_frame(clip, tmp_path):
    for name, mask in zip(clip.names, clip.masks, strict=True):
        write_mask(tmp_path / "masks" / f"{name}.png", mask)
    write_overlay_video(tmp_path / "a" / "v.mp4", open_video(clip.folder), tmp_path / "masks", (MaskPrompt(2, PixelBox(5, 5, 20, 20)),))
    with av.open(str(tmp_path / "a" / "v.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == len(clip.names) - 1 + KEYFRAME_HOLD
    assert frames[0].shape == (80, 120, 3)


def test_odd_sizes_are_padded(tmp_path):
    Image.new("RGB", (33, 21)).save(tmp_path / "0.png")
    write_mask(tmp_path / "masks" / "0.png", np.zeros((21, 33), bool))
    write_overlay_video(tmp_path / "v.mp4", open_video(tmp_path), tmp_path / "masks", ())
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (34, 22)
