import numpy as np
import pytest

from post_segmentation.grabcut_mask import cut_box, cut_guess, grow, window_around
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.masks import mask_box

RNG = np.random.default_rng(3)


def plain_image(shape=(60, 80), background=90):
    return np.clip(RNG.normal(background, 6, (*shape, 3)), 0, 255).astype(np.uint8)


def disc(shape, x, y, radius):
    rows, columns = np.indices(shape)
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_the_object_is_cut_out_of_its_box():
    image, truth = plain_image(), disc((60, 80), 40, 30, 15)
    image[truth] = (30, 30, 220)
    assert iou(cut_box(image, mask_box(truth), [], []), truth) > 0.97


def test_a_dark_rim_on_a_dark_background_is_given_back():
    image, truth, inner = (
        plain_image(background=30),
        disc((60, 80), 40, 30, 15),
        disc((60, 80), 40, 30, 13),
    )
    image[truth] = 32
    image[inner] = (30, 30, 220)
    assert iou(cut_box(image, mask_box(truth), [], []), truth) > 0.95


def test_a_negative_point_keeps_its_surroundings_out():
    image, truth = plain_image(), disc((60, 80), 40, 30, 15)
    image[truth] = (30, 30, 220)
    assert cut_box(image, mask_box(truth), [], [])[20, 40]
    assert not cut_box(image, mask_box(truth), [], [PixelPoint(40, 20)])[20, 40]


def test_where_colours_tell_nothing_the_middle_of_the_box_is_kept():
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = cut_box(image, PixelBox(20, 10, 59, 49), [PixelPoint(40, 30)], [])
    assert mask[30, 40]
    assert mask.sum() > 0.2 * 1600
    assert not mask[:, :20].any()


@pytest.mark.parametrize(
    "box",
    [
        PixelBox(0, 0, 79, 59),
        PixelBox(79, 59, 79, 59),
        PixelBox(0, 0, 1, 1),
        PixelBox(10.4, 9.6, 10.5, 50),
    ],
)
def test_extreme_boxes_give_a_mask_inside_them(box):
    mask = cut_box(plain_image(), box, [], [])
    assert mask.shape == (60, 80)
    found = mask_box(mask)
    assert found is None or (
        found.x1 >= round(box.x1)
        and found.x2 <= round(box.x2)
        and found.y1 >= round(box.y1)
        and found.y2 <= round(box.y2)
    )


def test_a_guess_moves_onto_the_edge_of_the_image_and_no_further():
    image, truth = plain_image(), disc((60, 80), 40, 30, 15)
    image[truth] = (30, 30, 220)
    guess = disc((60, 80), 42, 31, 15)
    sure = disc((60, 80), 41, 30, 8)
    cut = cut_guess(image, guess, sure)
    assert iou(cut, truth) > 0.95 > iou(guess, truth)
    assert not (cut & ~grow(guess, 3)).any()
    assert not cut_guess(image, np.zeros_like(guess), sure).any()


def test_cutting_is_repeatable():
    image, truth = plain_image(), disc((60, 80), 40, 30, 15)
    image[truth] = RNG.integers(0, 255, (truth.sum(), 3))
    assert (
        cut_box(image, mask_box(truth), [], []) == cut_box(image, mask_box(truth), [], [])
    ).all()


def test_a_window_never_leaves_the_image_and_never_is_empty():
    for box in (PixelBox(-50, -50, -40, -40), PixelBox(500, 500, 600, 600), PixelBox(5, 5, 6, 6)):
        window = window_around(box, (60, 80), 2)
        assert np.zeros((60, 80))[window].size > 0
