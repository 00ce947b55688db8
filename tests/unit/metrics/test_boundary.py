import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seg_research.metrics import boundary_f


def square(top, left, side, shape=(480, 854)):
    mask = np.zeros((1, *shape), bool)
    mask[0, top : top + side, left : left + side] = True
    return mask


def test_a_mask_matches_itself():
    assert boundary_f(square(100, 200, 50), square(100, 200, 50)).tolist() == [1.0]


def test_a_shift_within_eight_pixels_is_forgiven_at_480p_and_a_longer_one_is_not():
    truth = square(100, 200, 80)
    assert boundary_f(truth, square(108, 200, 80)).tolist() == [1.0]
    assert boundary_f(truth, square(109, 200, 80))[0] < 1.0


def test_empty_conventions():
    empty, some = np.zeros((1, 20, 30), bool), square(5, 5, 8, (20, 30))
    assert boundary_f(empty, empty).tolist() == [1.0]
    assert boundary_f(empty, some).tolist() == [0.0]
    assert boundary_f(some, empty).tolist() == [0.0]


def test_a_full_image_has_no_outline():
    full = np.ones((1, 20, 30), bool)
    assert boundary_f(full, full).tolist() == [1.0]
    assert boundary_f(full, np.zeros_like(full)).tolist() == [1.0]


def test_void_pixels_are_cut_out_of_both_masks():
    truth, prediction = square(4, 4, 10, (40, 40)), square(4, 4, 10, (40, 40))
    prediction[0, 30:38, 30:38] = True
    void = np.zeros((1, 40, 40), bool)
    void[0, 28:, 28:] = True
    assert boundary_f(truth, prediction)[0] < 1.0
    assert boundary_f(truth, prediction, void).tolist() == [1.0]


def test_frames_are_judged_one_by_one():
    truth = np.concatenate([square(4, 4, 9, (40, 40)), np.zeros((1, 40, 40), bool)])
    assert boundary_f(truth, truth[::-1]).tolist() == [0.0, 0.0]
    assert boundary_f(truth, truth).tolist() == [1.0, 1.0]


def plain_f(truth, prediction):
    """The definition, pixel by pixel: outlines from three neighbours, matches within the radius of
    all pairs of outline pixels.
    """
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    outlines = []
    for mask in (truth, prediction):
        padded = np.pad(mask, (0, 1), mode="edge")
        here, right, below, diagonal = (
            padded[:-1, :-1],
            padded[:-1, 1:],
            padded[1:, :-1],
            padded[1:, 1:],
        )
        outlines.append(np.argwhere((here != right) | (here != below) | (here != diagonal)))
    if min(map(len, outlines)) == 0:
        return float(len(outlines[0]) == len(outlines[1]))
    near = ((outlines[0][:, None] - outlines[1][None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(0).mean(), near.any(1).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@st.composite
def pairs(draw):
    """Two masks of one shape, up to a few words wide, made of a few rectangles and pixels."""
    shape = draw(
        st.sampled_from(
            [
                (1, 1),
                (1, 9),
                (9, 1),
                (7, 63),
                (6, 64),
                (8, 65),
                (40, 130),
                (110, 90),
                (3, 900),
                (700, 2),
                (2, 8100),
            ]
        )
    )
    masks = np.zeros((2, *shape), bool)
    spans = st.tuples(
        st.integers(0, 1),
        *(st.integers(0, size - 1) for size in shape),
        st.integers(1, 70),
        st.integers(1, 70),
        st.booleans(),
    )
    for which, top, left, height, width, value in draw(st.lists(spans, max_size=8)):
        masks[which, top : top + height, left : left + width] = value
    return masks


@given(pairs())
@settings(max_examples=150, deadline=None)
def test_f_is_what_its_definition_says(masks):
    assert boundary_f(masks[:1], masks[1:])[0] == pytest.approx(plain_f(*masks), abs=1e-12)


@pytest.mark.parametrize("side", [62, 63, 64, 65, 126, 127, 128, 129])
def test_an_outline_that_starts_in_the_word_before_the_mask_is_seen(side):
    truth, prediction = np.zeros((2, 1, 50, 300), bool)
    truth[0, 10:30, side:250] = True
    prediction[0, 12:33, side + 2 : 251] = True
    assert boundary_f(truth, prediction)[0] == pytest.approx(
        plain_f(truth[0], prediction[0]), abs=1e-12
    )


def test_an_outline_at_the_end_of_a_row_is_far_from_the_start_of_the_next():
    # whole words, and a radius of 73 px that reaches over more than one
    truth, prediction = np.zeros((2, 1, 3, 9024), bool)
    truth[0, 1, -1] = prediction[0, 2, 2] = True
    assert boundary_f(truth, prediction).tolist() == [0.0]


def test_the_radius_is_exact_where_the_diagonal_is():
    truth, prediction = np.zeros((2, 1, 300, 400), bool)
    truth[0, 100:140, 100:140] = True
    for shift, is_perfect in ((4, True), (5, False)):  # 0.008 x 500 px is 4 px and not a hair more
        prediction[:] = np.roll(truth, shift, axis=2)
        assert bool(boundary_f(truth, prediction)[0] == 1.0) is is_perfect


@given(arrays(bool, (2, 30, 70)))
@settings(max_examples=40, deadline=None)
def test_f_is_symmetric_and_bounded(masks):
    forwards, backwards = boundary_f(masks[:1], masks[1:])[0], boundary_f(masks[1:], masks[:1])[0]
    assert 0.0 <= forwards <= 1.0
    assert forwards == pytest.approx(backwards, abs=1e-12)
