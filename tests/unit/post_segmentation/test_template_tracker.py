import cv2
import numpy as np
import pytest

from post_segmentation.template_tracker import Template, chain, dense_flow

RNG = np.random.default_rng(4)
SCENE = cv2.GaussianBlur(RNG.integers(60, 200, (120, 160, 3)).astype(np.uint8), (0, 0), 3)


def draw(pose=None, size=(160, 120)):
    """The scene with a two-coloured ellipse on it, moved by a pose; its mask."""
    pose = np.eye(2, 3) if pose is None else pose
    sprite, mask = np.zeros_like(SCENE), np.zeros(SCENE.shape[:2], np.uint8)
    cv2.ellipse(sprite, (60, 50), (20, 12), 0, 0, 360, (30, 40, 220), -1)
    cv2.ellipse(sprite, (66, 50), (8, 5), 0, 0, 360, (60, 230, 240), -1)
    cv2.ellipse(mask, (60, 50), (20, 12), 0, 0, 360, 1, -1)
    mask = cv2.warpAffine(mask, pose, size, flags=cv2.INTER_NEAREST) > 0
    image = np.where(
        mask[..., None], cv2.warpAffine(sprite, pose, size, flags=cv2.INTER_NEAREST), SCENE
    )
    return image.astype(np.uint8), mask


def similarity(dx, dy, turn=0.0, scale=1.0):
    return np.vstack([cv2.getRotationMatrix2D((60, 50), np.degrees(turn), scale)]) + np.array(
        [[0, 0, dx], [0, 0, dy]]
    )


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture
def template():
    return Template.of(*draw())


def test_on_its_own_frame_everything_agrees(template):
    match = template.match(np.eye(2, 3), draw()[0])
    assert match.agreement == 1.0
    assert (match.placed_HW == draw()[1]).all()


@pytest.mark.parametrize(
    "pose", [similarity(4, -3), similarity(2, 2, turn=0.15), similarity(0, 0, scale=1.15)]
)
def test_registration_finds_small_motions(template, pose):
    image, mask = draw(pose)
    match = template.register(np.eye(2, 3), image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    assert match.agreement > 0.95
    assert iou(match.placed_HW, mask) > 0.9


def test_what_is_hidden_does_not_agree(template):
    image, mask = draw()
    image[:, 60:] = (20, 120, 20)
    match = template.register(np.eye(2, 3), image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    assert 0.35 < match.agreement < 0.65
    assert not (match.agreeing_HW & ~mask).any()


@pytest.mark.parametrize(
    "pose",
    [
        similarity(50, 40),
        similarity(30, -20, turn=0.25),
        similarity(95, 10),
        similarity(-35, 20, scale=0.85),
    ],
)
def test_search_finds_far_motions_even_half_outside(template, pose):
    image, mask = draw(pose)
    found = template.search(np.eye(2, 3), image, np.array([60.0, 50.0]), 140)
    match = template.register(found, image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    assert match.agreement > 0.9
    assert iou(match.placed_HW, mask) > 0.75


def test_search_finds_nothing_where_nothing_is(template):
    assert template.search(np.eye(2, 3), SCENE, np.array([60.0, 50.0]), 140) is None


def test_an_empty_mask_makes_no_template():
    assert Template.of(SCENE, np.zeros(SCENE.shape[:2], bool)) is None


def test_chaining_applies_the_first_pose_first():
    first, then = similarity(10, 0), np.array([[2.0, 0, 0], [0, 2.0, 0]])
    assert chain(first, then) @ [60, 50, 1] == pytest.approx([140, 100])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 40), (40, 40)])
def test_flow_takes_images_of_any_size(shape):
    assert dense_flow(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)).shape == (*shape, 2)
