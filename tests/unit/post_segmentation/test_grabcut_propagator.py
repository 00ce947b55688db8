from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from post_segmentation.grabcut_propagator import GrabCutPropagator
from post_segmentation.propagator import MaskPrompt
from seg_common.errors import UsageError
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.masks import mask_box
from seg_research.core.video import open_video
from seg_research.metrics import jaccard

BEDROOM = Path(__file__).parents[4] / "shared/data/clips/bedroom"
DOG = BEDROOM.with_name("dog.mp4")


def propagate(folder, *prompts):
    propagator = GrabCutPropagator()
    propagator.open(open_video(folder))
    for prompt in prompts:
        propagator.prompt(prompt)
    results = list(propagator.propagate())
    assert sorted(r.position for r in results) == list(range(len(open_video(folder)))), (
        "every frame exactly once"
    )
    return {r.position: r.masks_NHW for r in results}


@pytest.fixture(scope="module", params=[0, 9])
def followed(clip, request):
    """Masks of every frame from the exact box of one, and their J."""
    by_position = propagate(
        clip.folder, MaskPrompt(request.param, mask_box(clip.masks[request.param]))
    )
    masks = np.stack([by_position[position][0] for position in range(len(clip.masks))])
    return masks, jaccard(np.stack(clip.masks), masks)


def test_the_object_is_followed_in_both_directions(followed):
    _, scores = followed
    assert scores.mean() > 0.85
    assert scores[:3].min() > 0.9


def test_what_stands_in_front_is_not_masked(followed, clip):
    masks, scores = followed
    behind = [p for p in range(8) if clip.masks[p].sum() < 0.9 * clip.masks[0].sum()]
    assert len(behind) >= 3, "the clip must hide the object somewhere"
    assert masks[behind][:, :, 50:62].mean() < 0.02
    assert scores[behind].mean() > 0.4


def test_out_of_the_image_is_empty_and_coming_back_is_found(followed, clip):
    _, scores = followed
    away = [p for p, mask in enumerate(clip.masks) if not mask.any()]
    assert away
    assert scores[away].tolist() == [1.0] * len(away)
    assert scores[-2:].min() > 0.85


def test_two_runs_give_the_same_bits(clip):
    prompt = MaskPrompt(4, mask_box(clip.masks[4]), (PixelPoint(44, 45),))
    first, second = propagate(clip.folder, prompt), propagate(clip.folder, prompt)
    assert all((first[p] == second[p]).all() for p in first)


def test_objects_of_one_key_frame_are_followed_together(clip):
    prompts = MaskPrompt(2, mask_box(clip.masks[2])), MaskPrompt(2, PixelBox(50, 0, 61, 79))
    together = propagate(clip.folder, *prompts)
    assert together[0].shape == (2, 80, 120)
    alone = propagate(clip.folder, prompts[0])
    assert all((together[p][0] == alone[p][0]).all() for p in alone)


def test_objects_of_different_key_frames_are_followed_as_if_alone(clip):
    prompts = [MaskPrompt(position, mask_box(clip.masks[position])) for position in (0, 9)]
    propagator = GrabCutPropagator()
    propagator.open(open_video(clip.folder))
    for prompt in prompts:
        propagator.prompt(prompt)
    together = {
        (number, r.position): mask
        for r in propagator.propagate()
        for number, mask in zip(r.objects, r.masks_NHW, strict=True)
    }
    assert len(together) == 2 * len(clip.names)
    for number, prompt in enumerate(prompts):
        for position, (mask,) in propagate(clip.folder, prompt).items():
            assert (together[number, position] == mask).all()


def test_a_large_video_gets_masks_of_its_own_size(tmp_path):
    for position in range(3):
        image = np.full((400, 1000, 3), 90, np.uint8)
        image[100:200, 300 + 20 * position : 500 + 20 * position] = (220, 40, 40)
        Image.fromarray(image).save(tmp_path / f"{position}.png")
    masks = propagate(tmp_path, MaskPrompt(0, PixelBox(300, 100, 499, 199)))
    for position in range(3):
        truth = np.zeros((1, 400, 1000), bool)
        truth[0, 100:200, 300 + 20 * position : 500 + 20 * position] = True
        assert jaccard(truth, masks[position])[0] > 0.95


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (16, 9), (200, 3)])
def test_the_smallest_videos_do_not_break_it(tmp_path, size):
    for position in range(6):
        noise = np.random.default_rng(position).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{position}.png")
    box = PixelBox(0.2 * size[0], 0.2 * size[1], 0.7 * size[0], 0.7 * size[1])
    assert propagate(tmp_path, MaskPrompt(3, box))[0].shape == (1, size[1], size[0])


def test_frames_of_different_sizes_are_refused(tmp_path):
    for position, size in enumerate([(20, 10), (20, 10), (21, 10)]):
        Image.new("RGB", size).save(tmp_path / f"{position}.png")
    with pytest.raises(UsageError, match="frame 2 is 21x10, the first frame is 20x10"):
        propagate(tmp_path, MaskPrompt(0, PixelBox(2, 2, 9, 9)))


@pytest.mark.shared
@pytest.mark.skipif(not BEDROOM.is_dir(), reason="needs ../shared/data/clips/bedroom")
def test_a_real_child_is_found_on_every_frame():
    prompt = MaskPrompt(0, PixelBox(314, 3, 519, 393), (PixelPoint(398, 178), PixelPoint(403, 108)))
    masks = propagate(BEDROOM, prompt)
    whole = 540 * 960
    assert all(0.01 * whole < masks[p].sum() < 0.15 * whole for p in masks)
    for position, x_px in {8: 343, 16: 338, 22: 250}.items():
        assert abs(np.median(np.nonzero(masks[position][0])[1]) - x_px) < 40, position


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not DOG.is_file(), reason="needs ../shared/data/clips/dog.mp4")
def test_a_real_dog_leaves_the_image_and_is_found_again():
    masks = propagate(DOG, MaskPrompt(0, PixelBox(448, 382, 703, 551), (PixelPoint(589, 446),)))
    areas = np.array([masks[position].sum() for position in range(len(masks))])
    assert (areas[:30] > 2000).all(), "in the image"
    assert (areas[85:100] == 0).all(), "out of it"
    assert (areas[125:] > 1000).mean() > 0.9, "back again"
    assert areas.max() < 0.08 * 1280 * 720, "never the pavement"
