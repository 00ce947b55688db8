"""Coordinates: what cannot be built, what a conversion may lose, what an overlap may be."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seg_research.core.geometry import (
    ImageSize,
    Norm1000Box,
    Norm1000Point,
    PixelBox,
    PixelPoint,
    box_to_norm1000,
    box_to_pixels,
    inclusive_iou,
    point_to_norm1000,
    point_to_pixels,
)

sizes = st.builds(ImageSize, st.integers(1, 4000), st.integers(1, 4000))
coordinates = st.floats(0, 1000)


@st.composite
def boxes(draw):
    x1, x2 = sorted(draw(st.tuples(coordinates, coordinates)))
    y1, y2 = sorted(draw(st.tuples(coordinates, coordinates)))
    assume(x1 < x2 and y1 < y2)
    return Norm1000Box(x1, y1, x2, y2)


@st.composite
def pixel_boxes(draw):
    size = draw(sizes)
    x1, x2 = sorted(draw(st.tuples(*[st.integers(0, size.width_px - 1)] * 2)))
    y1, y2 = sorted(draw(st.tuples(*[st.integers(0, size.height_px - 1)] * 2)))
    return PixelBox(x1, y1, x2, y2), size


@pytest.mark.parametrize(
    "bad",
    [math.nan, math.inf, -math.inf, -0.001, 1000.001, 10**400, -(10**400)],
    ids=lambda value: str(value)[:9],
)
def test_a_coordinate_outside_the_range_is_a_value_error(bad):
    with pytest.raises(ValueError, match=r"outside 0\.\.1000"):
        Norm1000Point(bad, 5)
    with pytest.raises(ValueError, match=r"outside 0\.\.1000"):
        Norm1000Point(5, bad)
    for index in range(4):
        values = [10, 10, 20, 20]
        values[index] = bad
        with pytest.raises(ValueError, match=r"outside 0\.\.1000"):
            Norm1000Box(*values)


@pytest.mark.parametrize(
    "corners", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5, 9, 9, 5), (0, 0, 0, 0)]
)
def test_a_box_without_area_is_refused_with_its_numbers(corners):
    with pytest.raises(ValueError, match="has no area") as caught:
        Norm1000Box(*corners)
    assert str(list(corners)) in str(caught.value)


def test_a_refusal_of_pixel_coordinates_says_what_to_do():
    with pytest.raises(ValueError, match="box_to_norm1000"):
        Norm1000Box(0, 0, 1280, 720)


def test_the_whole_image_is_a_box():
    assert Norm1000Box(0, 0, 1000, 1000).as_list() == [0, 0, 1000, 1000]


@given(pixel_boxes())
def test_a_box_survives_the_way_there_and_back_within_one_and_a_half_thousandths(box_and_size):
    box, size = box_and_size
    back = box_to_pixels(box_to_norm1000(box, size), size)
    # Half a thousandth is rounding; a whole one is what a widened box gains on one side.
    tolerance_x, tolerance_y = 1.5 * size.width_px / 1000 + 1e-6, 1.5 * size.height_px / 1000 + 1e-6
    assert abs(back.x1 - box.x1) <= tolerance_x
    assert abs(back.x2 - box.x2) <= tolerance_x
    assert abs(back.y1 - box.y1) <= tolerance_y
    assert abs(back.y2 - box.y2) <= tolerance_y


@given(boxes(), sizes)
def test_a_pixel_box_lies_inside_its_image(box, size):
    pixels = box_to_pixels(box, size)
    assert 0 <= pixels.x1 <= pixels.x2 <= size.width_px - 1
    assert 0 <= pixels.y1 <= pixels.y2 <= size.height_px - 1


@given(coordinates, coordinates, sizes)
def test_a_pixel_point_lies_inside_its_image(x, y, size):
    for point in (Norm1000Point(x, y), Norm1000Point(1000, 1000)):
        pixel = point_to_pixels(point, size)
        assert 0 <= pixel.x <= size.width_px - 1
        assert 0 <= pixel.y <= size.height_px - 1


@given(st.data())
def test_a_point_survives_the_way_there_and_back_within_half_a_thousandth(data):
    size = data.draw(sizes)
    point = PixelPoint(
        data.draw(st.integers(0, size.width_px - 1)), data.draw(st.integers(0, size.height_px - 1))
    )
    back = point_to_pixels(point_to_norm1000(point, size), size)
    assert abs(back.x - point.x) <= size.width_px / 2000 + 1e-6
    assert abs(back.y - point.y) <= size.height_px / 2000 + 1e-6


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        (PixelBox(0, 0, 853, 479), ImageSize(854, 480), [0, 0, 999, 998]),
        (PixelBox(427, 240, 640, 360), ImageSize(854, 480), [500, 500, 749, 750]),
        (PixelBox(7, 7, 7, 7), ImageSize(100, 100), [70, 70, 71, 71]),
        (PixelBox(3999, 3999, 3999, 3999), ImageSize(4000, 4000), [999, 999, 1000, 1000]),
    ],
)
def test_boxes_are_rounded_as_the_benchmark_does_and_never_lose_their_area(box, size, expected):
    assert box_to_norm1000(box, size).as_list() == expected


@pytest.mark.parametrize("box", [PixelBox(9, 0, 5, 5), PixelBox(0, 9, 5, 5)])
def test_an_inverted_pixel_box_is_refused_not_mended(box):
    with pytest.raises(ValueError, match="inverted"):
        box_to_norm1000(box, ImageSize(100, 100))


def test_containment_includes_the_edge():
    box = Norm1000Box(10, 20, 30, 40)
    assert box.contains(Norm1000Point(10, 40))
    assert not box.contains(Norm1000Point(9.9, 30))
    assert not box.contains(Norm1000Point(20, 40.1))


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_between_0_and_1(a, b):
    assert 0 <= inclusive_iou(a, b) <= 1 + 1e-12
    assert inclusive_iou(a, b) == pytest.approx(inclusive_iou(b, a))


@given(box=boxes())
def test_a_box_overlaps_itself_wholly(box):
    assert inclusive_iou(box, box) == pytest.approx(1)


@pytest.mark.parametrize(
    "other", [(20, 0, 30, 10), (0, 20, 10, 30), (10, 0, 20, 10), (0, 10, 10, 20)]
)
def test_boxes_that_are_apart_or_merely_touch_do_not_overlap(other):
    assert inclusive_iou(Norm1000Box(0, 0, 10, 10), Norm1000Box(*other)) == 0


def test_overlap_counts_both_edges():
    assert inclusive_iou(Norm1000Box(0, 0, 9, 9), Norm1000Box(5, 0, 14, 9)) == pytest.approx(
        50 / 150
    )
