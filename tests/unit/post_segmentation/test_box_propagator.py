import pytest

from post_segmentation.box_propagator import BoxPropagator, fill_box
from post_segmentation.propagator import MaskPrompt
from seg_research.core.geometry import ImageSize, PixelBox, PixelPoint
from seg_research.core.video import open_video


def test_a_box_covers_its_first_and_last_pixel():
    mask = fill_box(PixelBox(2, 1, 4, 1), ImageSize(6, 3))
    assert mask.astype(int).tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("box", "area"),
    [(PixelBox(-5, -5, 0, 0), 1), (PixelBox(4, 1, 99, 99), 4), (PixelBox(1.2, 0.2, 1.6, 0.6), 4)],
)
def test_a_box_is_clipped_and_rounded_outwards(box, area):
    assert fill_box(box, ImageSize(6, 3)).sum() == area


def test_every_frame_once_with_every_object_in_order(clip):
    propagator = BoxPropagator()
    propagator.open(open_video(clip.folder))
    propagator.prompt(MaskPrompt(3, PixelBox(0, 0, 9, 9)))
    propagator.prompt(MaskPrompt(3, None, (PixelPoint(60, 40),)))
    results = list(propagator.propagate())
    assert sorted(result.position for result in results) == list(range(len(clip.names)))
    assert [int(mask.sum()) for mask in results[0].masks_NHW] == [100, 81]
