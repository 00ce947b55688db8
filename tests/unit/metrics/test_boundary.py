import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from seg_research.core.errors import UsageError
from seg_research.metrics import boundary_f
from seg_research.metrics.boundary import _count, _dilate, _pack


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


def test_different_shapes_are_refused():
    with pytest.raises(UsageError, match="shapes"):
        boundary_f(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))


@given(
    st.tuples(st.integers(1, 100), st.integers(1, 200)),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 199)), max_size=12),
    st.integers(0, 90),
)
@settings(max_examples=80, deadline=None)
def test_dilation_marks_exactly_the_pixels_within_the_radius(shape, points, radius_px):
    mask, expected = np.zeros(shape, bool), np.zeros(shape, bool)
    y, x = np.indices(shape)
    for row, column in points:
        if row < shape[0] and column < shape[1]:
            mask[row, column] = True
            expected |= (y - row) ** 2 + (x - column) ** 2 <= radius_px**2
    dilated = np.unpackbits(_dilate(_pack(mask), radius_px).view(np.uint8), axis=1, bitorder="little")
    assert (dilated[:, : shape[1]] == expected).all()


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=200)))
@settings(max_examples=30, deadline=None)
def test_packing_keeps_every_pixel(mask):
    assert _count(_pack(mask)) == mask.sum()


@given(arrays(bool, (2, 30, 70)))
@settings(max_examples=40, deadline=None)
def test_f_is_symmetric_and_bounded(masks):
    forwards, backwards = boundary_f(masks[:1], masks[1:])[0], boundary_f(masks[1:], masks[:1])[0]
    assert 0.0 <= forwards <= 1.0
    assert forwards == pytest.approx(backwards, abs=1e-12)
