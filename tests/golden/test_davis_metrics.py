"""J and F against values that the DAVIS-2017 evaluation code itself gave.

`davis_values.csv` was written by that code, as the package esdft-segmetric 0.1.0 (BSD-3) ships it,
not by a copy of ours:

    pip install --no-deps --target /tmp/davis esdft-segmetric==0.1.0 scikit-image==0.26.0
    lazy_loader==0.6 PYTHONPATH=/tmp/davis python tests/golden/test_davis_metrics.py

The masks come from their seeds by integer arithmetic alone, so they are the same on every machine;
a checksum of each pair tells a changed mask from a changed score.
"""

import csv
import zlib
from pathlib import Path

import numpy as np
import pytest

VALUES = Path(__file__).with_name("davis_values.csv")
FIELDS = ["seed", "height", "width", "truth", "prediction", "void", "crc32", "J", "F"]

# Widths around the 64-bit word, lines one pixel high or wide, radii 1, 2, 3, 4 and (9000 pixels
# long) 73, more than a word.
SMALL_SHAPES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (1, 70),
    (70, 1),
    (2, 3),
    (5, 5),
    (17, 63),
    (31, 64),
    (40, 65),
    (90, 127),
    (64, 128),
    (33, 129),
]
MEDIUM_SHAPES = [(120, 160), (160, 120), (100, 250), (300, 100), (240, 320)]
LARGE_SHAPES = [(480, 854), (854, 480), (720, 720), (3, 9000), (9000, 3)]


class Seeded:
    """Integers from raw generator words, whose stream NumPy keeps for good (its distributions it
    does not).
    """

    def __init__(self, seed):
        self.bits = np.random.PCG64(seed)

    def below(self, limit):
        return int(self.bits.random_raw() % limit)

    def noise(self, shape):
        num_words = -(-shape[0] * shape[1] // 8)
        return (
            self.bits.random_raw(num_words)
            .astype("<u8")
            .view(np.uint8)[: shape[0] * shape[1]]
            .reshape(shape)
            .astype(np.int64)
        )


def smoothed(values, radius, times):
    for _ in range(times):
        for axis in (0, 1):
            width = [(0, 0), (0, 0)]
            width[axis] = (radius + 1, radius)
            total = np.cumsum(np.pad(values, width, mode="edge"), axis=axis)
            count = total.shape[axis]
            values = np.take(total, range(2 * radius + 1, count), axis) - np.take(
                total, range(count - 2 * radius - 1), axis
            )
    return values


def above_share(values, percent):
    """Mark about `percent` of the pixels, those with the largest values."""
    rank = min(values.size - 1, values.size * (100 - percent) // 100)
    return values > np.partition(values.ravel(), rank)[rank]


def rectangle(seeded, shape):
    mask = np.zeros(shape, bool)
    top, left = seeded.below(shape[0]), seeded.below(shape[1])
    mask[top : top + 1 + seeded.below(shape[0]), left : left + 1 + seeded.below(shape[1])] = True
    return mask


def one_pixel(seeded, shape):
    mask = np.zeros(shape, bool)
    mask[seeded.below(shape[0]), seeded.below(shape[1])] = True
    return mask


def at_the_border(seeded, shape):
    mask, depth, side = np.zeros(shape, bool), 1 + seeded.below(3), seeded.below(6)
    parts = [
        np.s_[:depth],
        np.s_[-depth:],
        np.s_[:, :depth],
        np.s_[:, -depth:],
        np.s_[:depth, :depth],
        np.s_[-depth:, -depth:],
    ]
    mask[parts[side]] = True
    return mask


def thin_lines(seeded, shape):
    y, x = np.indices(shape)
    slope, steepness = seeded.below(5) - 2, 1 + seeded.below(3)
    return (steepness * y + slope * x) % (7 + seeded.below(40)) == 0


KINDS = {
    "empty": lambda seeded, shape: np.zeros(shape, bool),
    "full": lambda seeded, shape: np.ones(shape, bool),
    "one pixel": one_pixel,
    "border": at_the_border,
    "rectangle": rectangle,
    "lines": thin_lines,
    "checkers": lambda seeded, shape: np.indices(shape).sum(0) % 2 == 0,
    "sparse": lambda seeded, shape: (seeded.noise(shape) == 0) & (seeded.noise(shape) < 64),
    "noise": lambda seeded, shape: seeded.noise(shape) < 128,
    "texture": lambda seeded, shape: above_share(smoothed(seeded.noise(shape), 1, 2), 50),
    "blobs": lambda seeded, shape: above_share(
        smoothed(seeded.noise(shape), 3, 3), 2 + seeded.below(80)
    ),
    "smooth": lambda seeded, shape: above_share(
        smoothed(seeded.noise(shape), 9, 3), 5 + seeded.below(60)
    ),
}


def moved(mask, seeded):
    return np.roll(mask, (seeded.below(21) - 10, seeded.below(21) - 10), (0, 1)) ^ (
        seeded.noise(mask.shape) == 0
    )


def draw(seed, shape, truth_kind, prediction_kind, void_kind):
    """Return (truth, prediction, void or None), each (1, H, W)."""
    seeded = Seeded(seed)
    truth = KINDS[truth_kind](seeded, shape)
    prediction = (
        moved(truth, seeded)
        if prediction_kind == "moved"
        else KINDS[prediction_kind](seeded, shape)
    )
    void = None if void_kind == "none" else KINDS[void_kind](seeded, shape)[None]
    return truth[None], prediction[None], void


def checksum(*masks):
    return zlib.crc32(b"".join(np.packbits(mask).tobytes() for mask in masks if mask is not None))


def plan():
    """Every kind against every kind on the small shapes; on larger ones every kind against two
    others and against itself moved.
    """
    names, seed = list(KINDS), 0
    for first, truth_kind in enumerate(names):
        for prediction_kind in [*names, "moved"]:
            for shapes in (SMALL_SHAPES, SMALL_SHAPES, MEDIUM_SHAPES, MEDIUM_SHAPES):
                void_kind = (
                    "full"
                    if seed % 53 == 0
                    else ("none", "none", "none", "blobs", "noise", "border", "rectangle")[seed % 7]
                )
                yield (
                    seed,
                    shapes[(seed * 7 + first) % len(shapes)],
                    truth_kind,
                    prediction_kind,
                    void_kind,
                )
                seed += 1
        for prediction_kind in (
            names[(first + 5) % len(names)],
            names[(first + 7) % len(names)],
            "moved",
        ):
            yield (
                seed,
                LARGE_SHAPES[seed % len(LARGE_SHAPES)],
                truth_kind,
                prediction_kind,
                ("none", "blobs")[seed % 2],
            )
            seed += 1
    for prediction_kind in ("moved", "texture"):
        yield seed, (1080, 1920), "texture", prediction_kind, "none"
        seed += 1


def write_values():
    # the reference, on PYTHONPATH for this alone
    from segmetric.metrics import db_eval_boundary, db_eval_iou

    with VALUES.open("w", newline="") as handle, np.errstate(invalid="ignore"):
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(FIELDS)
        for seed, shape, *kinds in plan():
            masks = draw(seed, shape, *kinds)
            j, f = float(db_eval_iou(*masks)[0]), float(db_eval_boundary(*masks)[0])
            rows.writerow([seed, *shape, *kinds, checksum(*masks), repr(j), repr(f)])


def stored():
    with VALUES.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_values_are_many_and_differ():
    rows = stored()
    assert len(rows) >= 500
    assert list(rows[0]) == FIELDS
    assert [int(row["seed"]) for row in rows] == [seed for seed, *_ in plan()]
    assert len({row["F"] for row in rows}) > 250, "the cases are too alike to prove anything"
    assert {"0.0", "1.0"} < {row["F"] for row in rows}


@pytest.mark.parametrize("part", range(6))
def test_j_and_f_equal_the_davis_code(part):
    from seg_research.metrics import boundary_f, jaccard

    for row in stored()[part::6]:
        masks = draw(
            int(row["seed"]),
            (int(row["height"]), int(row["width"])),
            row["truth"],
            row["prediction"],
            row["void"],
        )
        assert checksum(*masks) == int(row["crc32"]), (
            f"these are not the masks the values were computed for: {row}"
        )
        assert jaccard(*masks)[0] == pytest.approx(float(row["J"]), abs=1e-12, rel=0), row
        assert boundary_f(*masks)[0] == pytest.approx(float(row["F"]), abs=1e-12, rel=0), row


if __name__ == "__main__":
    write_values()
