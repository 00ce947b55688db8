import numpy as np

from post_segmentation.static_background import StaticBackground

RNG = np.random.default_rng(6)
SCENE = RNG.integers(80, 120, (40, 60, 3)).astype(np.uint8)


def frame(left=None):
    image = np.clip(SCENE + RNG.normal(0, 2, SCENE.shape), 0, 255).astype(np.uint8)
    if left is not None:
        image[10:20, left : left + 8] = (20, 20, 230)
    return image


def test_what_moves_is_marked_and_the_rest_is_not():
    background = StaticBackground.of([frame(left) for left in range(0, 50, 5)])
    changed = background.changed(frame(left=26))
    assert changed[11:19, 27:33].all()
    changed[8:22, 24:36] = False
    assert changed.mean() < 0.01


def test_a_moving_camera_has_no_background():
    wide = RNG.integers(0, 255, (40, 200, 3)).astype(np.uint8)
    assert StaticBackground.of([wide[:, shift : shift + 60] for shift in range(0, 100, 10)]) is None


def test_a_few_frames_are_too_few():
    assert StaticBackground.of([frame()] * 4) is None
