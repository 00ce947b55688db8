import numpy as np
import pytest

from seg_research.metrics import overlap, temporal_iou


def shown(*frames):
    """A video of one-row frames, where a digit 1 is a pixel."""
    return np.array([[[int(pixel) for pixel in frame]] for frame in frames])


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (shown("11", "11", "00", "00"), shown("10", "00", "01", "00"), 1 / 3),
        (shown("10", "00"), shown("01", "00"), 1.0),  # the shapes do not matter
        (shown("00", "00"), shown("00", "00"), 1.0),
        (shown("00", "00"), shown("00", "01"), 0.0),
    ],
)
def test_frames_that_show_the_object(truth, prediction, expected):
    assert temporal_iou(overlap(truth, prediction)) == pytest.approx(expected)


def test_void_pixels_do_not_show_it():
    assert temporal_iou(overlap(shown("10", "10"), shown("10", "01"), shown("00", "01"))) == 0.5
