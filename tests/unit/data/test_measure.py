"""What a mask tells of its target, against the definitions on the whole image."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from seg_research.core.geometry import PixelBox
from seg_research.data.measure import measure


@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
@settings(max_examples=150, deadline=None)
def test_measures_match_the_whole_image_definition(mask_HW):
    measured = measure(mask_HW)
    if not mask_HW.any():
        assert measured is None
        return
    rows, columns = np.nonzero(mask_HW)
    assert measured.box == PixelBox(columns.min(), rows.min(), columns.max(), rows.max())
    assert measured.area_px == mask_HW.sum()
    components, _ = ndimage.label(mask_HW, np.ones((3, 3)))
    assert measured.max_conn_area_px == np.bincount(components.ravel())[1:].max()
    point = int(measured.point.y), int(measured.point.x)
    assert mask_HW[point]
    if not mask_HW.all():
        depth = ndimage.distance_transform_edt(mask_HW)
        assert point == np.unravel_index(np.argmax(depth), depth.shape)


def test_the_point_of_a_full_mask_is_its_centre():
    measured = measure(np.ones((9, 5), bool))
    assert (measured.point.x, measured.point.y) == (2, 2)
