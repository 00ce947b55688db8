import numpy as np
import pytest

from seg_common.errors import UsageError
from seg_research.metrics import boundary_f, jaccard, overlap

METRICS = [jaccard, boundary_f, overlap]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("other", [np.zeros((1, 2, 3)), np.zeros((2, 2, 2)), np.zeros((2, 2))])
def test_different_shapes_are_refused(metric, other):
    with pytest.raises(
        UsageError, match=r"truth \(1, 2, 2\), prediction .* expected one shape \(T, H, W\)"
    ):
        metric(np.zeros((1, 2, 2)), other)


@pytest.mark.parametrize("metric", METRICS)
def test_void_of_another_shape_is_refused(metric):
    with pytest.raises(UsageError, match=r"void \(1, 2, 3\)"):
        metric(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))


@pytest.mark.parametrize("metric", METRICS)
def test_a_single_image_is_refused_and_told_how(metric):
    with pytest.raises(UsageError, match=r"\(2, 2\).* a single image as \(1, H, W\)"):
        metric(np.zeros((2, 2)), np.zeros((2, 2)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 0, 4), (1, 4, 0)])
def test_nothing_to_judge_is_refused(metric, shape):
    with pytest.raises(UsageError, match="nothing to judge"):
        metric(np.zeros(shape, bool), np.zeros(shape, bool))


@pytest.mark.parametrize("metric", METRICS)
def test_nan_is_refused_with_its_frame(metric):
    scores = np.zeros((3, 2, 2))
    scores[2, 1, 1] = np.nan
    with pytest.raises(UsageError, match="prediction: frame 2 holds NaN"):
        metric(np.zeros((3, 2, 2)), scores)


@pytest.mark.parametrize("metric", METRICS)
def test_texts_are_no_masks(metric):
    with pytest.raises(UsageError, match="truth: masks of type <U1"):
        metric(np.full((1, 2, 2), "x"), np.zeros((1, 2, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
@pytest.mark.parametrize("metric", [jaccard, boundary_f])
def test_any_number_but_zero_is_foreground(metric, dtype):
    rng = np.random.default_rng(0)
    truth, prediction = rng.random((2, 3, 20, 30)) < 0.5
    expected = metric(truth, prediction)
    assert metric(truth.astype(dtype) * dtype(3), prediction).tolist() == expected.tolist()
    assert 0 < expected[0] < 1


@pytest.mark.parametrize("metric", [jaccard, boundary_f])
def test_masks_are_left_as_they_were(metric):
    masks = np.random.default_rng(0).random((3, 2, 20, 30)) < 0.5
    before = masks.copy()
    metric(*masks)
    assert (masks == before).all()


@pytest.mark.parametrize("metric", [jaccard, boundary_f])
def test_views_with_any_strides_score_the_same(metric):
    masks = np.random.default_rng(1).random((2, 2, 40, 60)) < 0.5
    cut = masks[:, ::-1, ::2, 1::2]
    assert metric(*cut).tolist() == metric(*np.ascontiguousarray(cut)).tolist()
