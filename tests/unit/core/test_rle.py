import numpy as np
import pytest

from seg_common.errors import UsageError
from seg_research.core.rle import Rle, decode_rle


def decode(size, counts):
    return decode_rle({"size": size, "counts": counts}).astype(int).tolist()


# Counts as pycocotools 2.0.11 writes them.
@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("6", [[0, 0], [0, 0], [0, 0]]),
        ("06", [[1, 1], [1, 1], [1, 1]]),
        ("114", [[0, 0], [1, 0], [0, 0]]),
        ("0120O0", [[1, 1], [0, 0], [0, 1]]),
    ],
)
def test_small_masks(counts, expected):
    assert decode([3, 2], counts) == expected


def test_a_mask_keeps_its_json_form_and_decodes():
    rle = Rle(3, 2, "114")
    assert rle.to_json() == {"size": [3, 2], "counts": "114"}
    assert rle.decode().astype(int).tolist() == [[0, 0], [1, 0], [0, 0]]


def test_what_pycocotools_writes_is_read_back():
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.1, 0.5, 0.99, 1):
        for shape in ((1, 1), (1, 50), (50, 1), (37, 53), (480, 854)):
            mask = rng.random(shape) < share
            mask[: shape[0] // 3] = share > 0.05
            counts = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
            assert (decode_rle({"size": list(shape), "counts": counts}) == mask).all()


@pytest.mark.parametrize(
    "encoded",
    [
        {},
        {"size": [3, 2]},
        {"size": [3, 2], "counts": [1, 1, 4]},
        {"size": [3], "counts": "6"},
        {"size": [0, 2], "counts": "0"},
        {"size": [3, True], "counts": "3"},
        {"size": [3, 2], "counts": ""},
        {"size": [3, 2], "counts": "115"},
        {"size": [3, 2], "counts": "11"},
        {"size": [3, 2], "counts": "O7"},
        {"size": [3, 2], "counts": "1\n4"},
        {"size": [3, 2], "counts": "é"},
        {"size": [3, 2], "counts": "Q"},
        {"size": [3, 2], "counts": "Q" * 30 + "0"},
        {"size": [100_000, 100_000], "counts": "6"},
    ],
)
def test_what_is_no_mask_is_refused(encoded):
    with pytest.raises(UsageError, match="run lengths: "):
        decode_rle(encoded)
