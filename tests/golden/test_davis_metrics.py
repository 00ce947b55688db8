"""J and F against the published definition, written here the plain way: numpy slices for outlines, one dilation with an explicit disk."""

import math

import numpy as np
import pytest
from scipy import ndimage

from seg_research.metrics import boundary_f, jaccard


def reference_j(truth, prediction, void):
    common = np.sum(truth & prediction & ~void)
    either = np.sum((truth | prediction) & ~void)
    return 1.0 if either == 0 else common / either


def reference_outline(mask):
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1, :] = mask[1:, :]
    diagonal[:-1, :-1] = mask[1:, 1:]
    outline = (mask != right) | (mask != below) | (mask != diagonal)
    outline[-1, :] = mask[-1, :] != right[-1, :]
    outline[:, -1] = mask[:, -1] != below[:, -1]
    outline[-1, -1] = False
    return outline


def reference_f(truth, prediction, void):
    radius = math.ceil(0.008 * np.linalg.norm(truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    truth_outline, outline = reference_outline(truth & ~void), reference_outline(prediction & ~void)
    num_truth, num = truth_outline.sum(), outline.sum()
    if num == 0 and num_truth == 0:
        precision, recall = 1.0, 1.0
    elif num == 0:
        precision, recall = 1.0, 0.0
    elif num_truth == 0:
        precision, recall = 0.0, 1.0
    else:
        precision = (outline & ndimage.binary_dilation(truth_outline, disk)).sum() / num
        recall = (truth_outline & ndimage.binary_dilation(outline, disk)).sum() / num_truth
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def blob(rng, shape, smoothness):
    field = ndimage.gaussian_filter(rng.random(shape), smoothness)
    return field > np.quantile(field, rng.uniform(0.3, 0.97))


def one_pixel(rng, shape):
    mask = np.zeros(shape, bool)
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
    return mask


def bordering(rng, shape):
    mask = np.zeros(shape, bool)
    depth = int(rng.integers(1, 4))
    side = rng.integers(4)
    mask[(slice(None, depth), slice(-depth, None), slice(None), slice(None))[side]] = side < 2
    if side >= 2:
        mask[:, slice(None, depth) if side == 2 else slice(-depth, None)] = True
    return mask


KINDS = [
    lambda rng, shape: np.zeros(shape, bool),
    lambda rng, shape: np.ones(shape, bool),
    one_pixel,
    bordering,
    lambda rng, shape: rng.random(shape) < 0.5,
    lambda rng, shape: blob(rng, shape, 2),
    lambda rng, shape: blob(rng, shape, 6),
    lambda rng, shape: np.indices(shape).sum(0) % 2 == 0,
]
# Widths around the 64-bit word, one-pixel images, and sizes whose matching radius is 1, 2, 3 and 4.
SHAPES = [(1, 1), (1, 70), (70, 1), (2, 3), (17, 63), (31, 64), (40, 65), (90, 127), (64, 128), (120, 160), (240, 320), (200, 400)]


def cases():
    rng = np.random.default_rng(20170331)
    for number in range(640):
        shape = SHAPES[number % len(SHAPES)]
        truth, prediction = (KINDS[int(k)](rng, shape) for k in rng.integers(len(KINDS), size=2))
        if number % 5 == 0:
            prediction = np.roll(truth, rng.integers(-5, 6, size=2), (0, 1))
        void = np.zeros(shape, bool) if number % 3 else blob(rng, shape, 3)
        yield truth, prediction, void


def test_j_and_f_equal_the_reference_on_640_pairs():
    worst, different = 0.0, set()
    for truth, prediction, void in cases():
        j = jaccard(truth[None], prediction[None], void[None])[0]
        f = boundary_f(truth[None], prediction[None], void[None])[0]
        expected = reference_j(truth, prediction, void), reference_f(truth, prediction, void)
        worst = max(worst, abs(j - expected[0]), abs(f - expected[1]))
        different.add(round(float(f), 6))
    assert worst <= 1e-12
    assert len(different) > 150, "the cases are too alike to prove anything"


@pytest.mark.parametrize("shape", [(480, 854), (1080, 1920)])
def test_large_frames_equal_the_reference(shape):
    rng = np.random.default_rng(shape[0])
    truth = blob(rng, shape, 20)
    prediction = np.roll(truth, (3, -9), (0, 1)) ^ (rng.random(shape) < 0.0005)
    void = np.zeros(shape, bool)
    assert boundary_f(truth[None], prediction[None])[0] == pytest.approx(reference_f(truth, prediction, void), abs=1e-12)
    assert jaccard(truth[None], prediction[None])[0] == pytest.approx(reference_j(truth, prediction, void), abs=1e-12)
