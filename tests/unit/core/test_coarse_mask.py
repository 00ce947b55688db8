"""A thinned-out mask: exact where nothing is left out, close where something is, and never larger
than a few hundred characters.
"""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from seg_common.errors import UsageError
from seg_research.core.coarse_mask import GRID_SIDE, CoarseMask
from seg_research.core.geometry import ImageSize, Norm1000Point

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


def at(row: float, column: float, mask_HW) -> Norm1000Point:
    height, width = mask_HW.shape
    return Norm1000Point(1000 * column / width, 1000 * row / height)


@given(masks)
def test_on_small_targets_depth_is_the_distance_to_the_background(mask_HW):
    coarse = CoarseMask.of(mask_HW)
    if not mask_HW.any():
        assert coarse is None
        return
    found = coarse.depths_px(
        [at(row, column, mask_HW) for row, column in np.ndindex(mask_HW.shape)]
    )
    if mask_HW.all():
        from_rows, from_columns = (
            np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in mask_HW.shape
        )
        exact = np.minimum(from_rows[:, None], from_columns)
    else:
        exact = ndimage.distance_transform_edt(mask_HW)
    assert np.reshape(found, mask_HW.shape) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((5, 15), (10, 30)), ((0, 10), (10, 30)), ((10, 20), (0, 40)), ((5, 6), (39, 40))],
)
def test_a_target_without_holes_is_as_deep_as_it_is_far_to_every_side(rows, columns):
    mask_HW = np.zeros((20, 40), bool)
    mask_HW[slice(*rows), slice(*columns)] = True
    found = CoarseMask.of(mask_HW).depths_px(
        [at(row, column, mask_HW) for row, column in np.ndindex(mask_HW.shape)]
    )
    assert np.reshape(found, mask_HW.shape) == pytest.approx(
        ndimage.distance_transform_edt(mask_HW)
    )


@pytest.mark.parametrize("radius_px", [60, 200, 470])
def test_on_large_targets_depth_is_right_to_a_stride(radius_px):
    y, x = np.mgrid[:1080, :1920]
    distance = np.hypot(y - 540, x - 960)
    disc = CoarseMask.of(distance <= radius_px)
    assert max(disc.samples().shape) <= GRID_SIDE + 3
    for offset in np.linspace(0, radius_px - 2 * disc.stride_px - 1, 7):
        [depth] = disc.depths_px([at(540, 960 + offset, distance)])
        assert abs(depth - (radius_px - offset)) <= 2 * disc.stride_px + 1
    assert disc.depths_px([at(540, 960 + radius_px + disc.stride_px + 1, distance)]) == [0.0]


def test_a_target_at_the_border_of_the_frame_goes_on_beyond_it():
    mask_HW = np.zeros((50, 50), bool)
    mask_HW[:, :20] = True
    coarse = CoarseMask.of(mask_HW)
    assert coarse.depths_px([at(0, 0, mask_HW), at(25, 0, mask_HW), at(25, 19, mask_HW)]) == [
        20,
        20,
        1,
    ]


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_any_point_can_be_asked_about(x, y):
    mask_HW = np.zeros((30, 40), bool)
    mask_HW[10:20, 10:20] = True
    assert 0 <= CoarseMask.of(mask_HW).depths_px([Norm1000Point(x, y)])[0] <= 6


def test_it_is_small_and_the_same_every_time():
    noisy = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(1080, 1920)), 20) > 0
    coarse = CoarseMask.of(noisy)
    assert len(coarse.png) < 2000
    assert coarse == CoarseMask.of(noisy)
    assert coarse.size == ImageSize(1920, 1080)


@pytest.mark.parametrize(
    "png", ["", "no base64!", "AAAA", base64.b64encode(b"\x89PNG\r\n\x1a\nrubbish").decode(), "é"]
)
def test_what_is_no_mask_is_told(png):
    with pytest.raises(UsageError, match=r"not readable .*; prepare the data again"):
        CoarseMask(ImageSize(4, 4), 0, 0, 1, png).depths_px([Norm1000Point(0, 0)])
