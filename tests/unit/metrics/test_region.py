import numpy as np
import pytest

from seg_research.core.errors import UsageError
from seg_research.metrics import jaccard


def masks(*rows):
    return np.array([rows])


def test_half_overlap():
    assert jaccard(masks([1, 1, 0, 0]), masks([0, 1, 1, 0])).tolist() == [1 / 3]


def test_two_empty_masks_agree_and_one_empty_does_not():
    empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert jaccard(empty, empty).tolist() == [1.0]
    assert jaccard(empty, full).tolist() == [0.0]


def test_void_pixels_count_neither_way():
    truth, prediction = masks([1, 1, 0, 0]), masks([1, 0, 0, 1])
    assert jaccard(truth, prediction, masks([0, 0, 0, 1])).tolist() == [0.5]
    assert jaccard(truth, prediction, masks([1, 1, 1, 1])).tolist() == [1.0], "all void: the union is empty"


def test_any_number_but_zero_is_foreground():
    assert jaccard(masks([255, 0]).astype(np.uint8), masks([1, 0])).tolist() == [1.0]


def test_every_frame_has_its_own_score():
    truth = np.array([[[1, 0]], [[1, 0]], [[0, 0]]])
    prediction = np.array([[[1, 0]], [[0, 1]], [[0, 0]]])
    assert jaccard(truth, prediction).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("other", [np.zeros((1, 2, 3)), np.zeros((2, 2, 2))])
def test_different_shapes_are_refused(other):
    with pytest.raises(UsageError, match=r"expected one shape \(T, H, W\)"):
        jaccard(np.zeros((1, 2, 2)), other)


def test_a_single_image_is_refused():
    with pytest.raises(UsageError, match=r"\(2, 2\)"):
        jaccard(np.zeros((2, 2)), np.zeros((2, 2)))
