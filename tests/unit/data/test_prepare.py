"""The shared part of preparing a benchmark: several targets, masks of any source, resuming."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.data.preparation import Preparation
from seg_research.data.prepare import prepare
from seg_research.data.question import BenchmarkQuestion, QuestionTarget
from seg_research.data.reader import BenchmarkReader
from seg_research.data.rows import read_samples
from seg_research.data.splits import Split

STEMS = tuple(f"{number:03d}" for number in range(4))
TRAIN = Preparation(Split.TRAIN, num_frames=3)


@dataclass(frozen=True)
class Squares:
    """A 4x4 square on some frames; nothing of it lies in files."""

    left_px: int
    shown: tuple[str, ...]

    def stems(self):
        return frozenset(self.shown)

    def read(self, stem):
        mask_HW = np.zeros((20, 30), bool)
        mask_HW[5:9, self.left_px : self.left_px + 4] = True
        return mask_HW

    def files(self):
        return []


def read(root: Path, split: Split) -> list[BenchmarkQuestion]:
    targets = (
        QuestionTarget("left", Squares(2, STEMS[:1])),
        QuestionTarget("right", Squares(20, STEMS[2:])),
    )
    return [
        BenchmarkQuestion(f"q{n}", "both?", n, f"row {n}", root / f"v{n}", STEMS, targets, "pairs")
        for n in range(3)
    ]


def note_truth(root, split, questions):
    (root / "truth.json").write_text(json.dumps([q.question_id for q in questions]))


READER = BenchmarkReader("squares", Path("data/squares"), read, note_truth)


@pytest.fixture
def root(tmp_path) -> Path:
    for number in range(3):
        (tmp_path / f"v{number}").mkdir()
        for stem in STEMS:
            Image.new("RGB", (30, 20)).save(tmp_path / f"v{number}" / f"{stem}.jpg")
    return tmp_path


def test_every_target_is_measured_on_the_frames_that_show_it(root):
    prepared = prepare(READER, root, Preparation(Split.TEST))
    samples = read_samples(prepared.path)
    assert [sample.sample_id for sample in samples] == ["q0", "q1", "q2"]
    found = {target.target_id: sorted(target.frames) for target in samples[0].truth.targets}
    assert found == {"left": [0], "right": [2, 3]}
    right = samples[0].truth.targets[1].frames[2]
    assert (right.area, right.box.x1) == (1, round(1000 * 20 / 30))
    assert json.loads((root / "truth.json").read_text()) == ["q0", "q1", "q2"]


def test_a_frame_that_shows_any_target_is_offered_in_training(root):
    for seed in range(4):
        path = prepare(READER, root, Preparation(Split.TRAIN, num_frames=2, seed=seed)).path
        assert all(sample.truth.is_visible for sample in read_samples(path))


def test_a_split_that_the_benchmark_lacks_is_refused(root):
    reader = BenchmarkReader("squares", root, read, splits=(Split.TRAIN, Split.VAL))
    with pytest.raises(UsageError, match="squares has no test split; there are: train, val"):
        prepare(reader, root, Preparation(Split.TEST))


def test_an_interrupted_preparation_continues_where_it_was(root, monkeypatch):
    (root / "v2" / "000.jpg").write_bytes(b"broken")
    with pytest.raises(UsageError, match="row 2: "):
        prepare(READER, root, TRAIN)
    assert not (root / TRAIN.file_name).exists()
    Image.new("RGB", (30, 20)).save(root / "v2" / "000.jpg")
    decoded = count_measured(monkeypatch)
    done = []
    prepared = prepare(READER, root, TRAIN, progress=lambda n, total: done.append((n, total)))
    assert decoded == ["q2"]
    assert done == [(3, 3)]
    assert len(read_samples(prepared.path)) == 3
    assert not list(root.glob("*.unfinished.jsonl"))


@pytest.mark.parametrize("changed", ["frame", "settings"])
def test_what_changed_meanwhile_is_prepared_again(root, monkeypatch, changed):
    (root / "v2" / "000.jpg").write_bytes(b"broken")
    with pytest.raises(UsageError):
        prepare(READER, root, TRAIN)
    Image.new("RGB", (30, 20)).save(root / "v2" / "000.jpg")
    preparation = TRAIN
    if changed == "frame":
        os.utime(root / "v0" / "001.jpg", ns=(1, 1))
    else:
        preparation = Preparation(Split.TRAIN, num_frames=3, seed=1)
    decoded = count_measured(monkeypatch)
    prepare(READER, root, preparation)
    assert decoded == (["q0", "q2"] if changed == "frame" else ["q0", "q1", "q2"])


def test_resumed_rows_equal_fresh_ones(root):
    fresh = prepare(READER, root, TRAIN).path.read_bytes()
    (root / "v2" / "000.jpg").rename(root / "kept.jpg")
    with pytest.raises(UsageError, match="1 of 4 frames are missing"):
        prepare(READER, root, TRAIN)
    (root / "kept.jpg").rename(root / "v2" / "000.jpg")
    assert prepare(READER, root, TRAIN, workers=2).path.read_bytes() == fresh


def count_measured(monkeypatch) -> list[str]:
    from seg_research.data import prepare as module

    seen: list[str] = []
    original = module._prepare_row

    def noting(reader_name, preparation, question):
        seen.append(question.question_id)
        return original(reader_name, preparation, question)

    monkeypatch.setattr(module, "_prepare_row", noting)
    return seen
