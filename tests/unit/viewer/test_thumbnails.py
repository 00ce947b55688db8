import base64
import io

import numpy as np
from PIL import Image

from seg_research.viewer.thumbnails import PREDICTION_RGB, TRUTH_RGB, embed, overlay_masks


def square(size: int, first: int, last: int) -> np.ndarray:
    mask_HW = np.zeros((size, size), dtype=bool)
    mask_HW[first:last, first:last] = True
    return mask_HW


def test_an_embedded_image_is_a_small_jpeg():
    image = embed(Image.new("RGB", (400, 200), "red"), 100, "a caption")
    decoded = Image.open(
        io.BytesIO(base64.b64decode(image.uri.removeprefix("data:image/jpeg;base64,")))
    )
    assert decoded.size == (image.width_px, image.height_px) == (100, 50)
    assert decoded.format == "JPEG"
    assert image.caption == "a caption"


def test_small_images_are_not_blown_up_and_slender_ones_are_bounded():
    assert embed(Image.new("L", (40, 20)), 100).width_px == 40
    assert embed(Image.new("RGB", (10, 5000)), 100).height_px == 30


def test_prediction_truth_and_outside_look_different():
    frame = Image.new("RGB", (100, 100), (200, 200, 200))
    drawn = np.asarray(overlay_masks(frame, square(100, 20, 60), square(100, 40, 80), 100))
    assert tuple(drawn[40, 20]) == PREDICTION_RGB  # edge of the prediction
    assert tuple(drawn[60, 80]) == TRUTH_RGB  # outline of the truth
    assert tuple(drawn[30, 30]) != (200, 200, 200)  # tint
    assert drawn[5, 5].max() < 150  # darkened


def test_without_a_prediction_nothing_is_darkened():
    frame = Image.new("RGB", (50, 50), (200, 200, 200))
    drawn = np.asarray(overlay_masks(frame, None, square(50, 10, 20), 50))
    assert tuple(drawn[45, 45]) == (200, 200, 200)


def test_masks_of_another_size_are_stretched_over_the_frame():
    frame = Image.new("RGB", (100, 100), (200, 200, 200))
    drawn = np.asarray(overlay_masks(frame, square(10, 0, 5), None, 100))
    assert drawn[80, 80].max() < 150
    assert drawn[20, 20, 0] > 200
