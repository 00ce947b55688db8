import numpy as np
import pytest

from seg_research.metrics import c_iou, g_iou, overlap


def image(truth, prediction, void=None):
    return overlap(
        np.array([[truth]]), np.array([[prediction]]), None if void is None else np.array([[void]])
    )


SMALL = image([1, 0], [1, 1])  # 1 of 2
LARGE = image([1] * 8, [1] * 6 + [0, 0])  # 6 of 8
EMPTY = image([0, 0, 0], [0, 0, 0])


def test_g_iou_weighs_images_the_same():
    assert g_iou([SMALL, LARGE]) == pytest.approx((1 / 2 + 6 / 8) / 2)
    assert g_iou([SMALL, LARGE, EMPTY]) == pytest.approx((1 / 2 + 6 / 8 + 1) / 3), (
        "agreeing on nothing is right"
    )


def test_c_iou_weighs_pixels_the_same():
    assert c_iou([SMALL, LARGE]) == pytest.approx(7 / 10)
    assert c_iou([SMALL, LARGE, EMPTY]) == pytest.approx(7 / 10)
    assert c_iou([EMPTY]) == 1.0


def test_ignored_pixels_leave_both():
    ignoring = image([1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 1])
    assert g_iou([ignoring]) == pytest.approx(1 / 3)
    assert c_iou([ignoring]) == pytest.approx(1 / 3)


def test_no_image_has_no_mean():
    with pytest.raises(ValueError, match="no images"):
        g_iou([])
