import numpy as np

from seg_research.metrics import jaccard, overlap


def masks(*rows):
    return np.array([rows])


def test_half_overlap():
    assert jaccard(masks([1, 1, 0, 0]), masks([0, 1, 1, 0])).tolist() == [1 / 3]


def test_two_empty_masks_agree_and_one_empty_does_not():
    empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert jaccard(empty, empty).tolist() == [1.0]
    assert jaccard(empty, full).tolist() == [0.0]


def test_void_pixels_count_neither_way():
    truth, prediction = masks([1, 1, 0, 0]), masks([1, 0, 0, 1])
    assert jaccard(truth, prediction, masks([0, 0, 0, 1])).tolist() == [0.5]
    assert jaccard(truth, prediction, masks([1, 1, 1, 1])).tolist() == [1.0], (
        "all void: the union is empty"
    )


def test_every_frame_has_its_own_score():
    truth = np.array([[[1, 0]], [[1, 0]], [[0, 0]]])
    prediction = np.array([[[1, 0]], [[0, 1]], [[0, 0]]])
    assert jaccard(truth, prediction).tolist() == [1.0, 0.0, 1.0]


def test_overlap_counts_pixels_and_leaves_void_out():
    truth, prediction, void = masks([1, 1, 0, 1]), masks([1, 0, 1, 1]), masks([0, 0, 0, 1])
    counts = overlap(truth, prediction, void)
    assert [int(count[0]) for count in counts] == [1, 3, 2, 2]
    assert counts.iou.tolist() == [1 / 3]
