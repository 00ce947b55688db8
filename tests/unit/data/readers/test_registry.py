"""A benchmark reader is one file: found by its name, and as easily outside the package."""

import sys

import pytest

from seg_common.errors import UsageError
from seg_common.registry import Registry
from seg_research.cli.main import EXIT_USAGE, main
from seg_research.data.reader import BenchmarkReader
from seg_research.data.readers import READERS
from seg_research.data.rows import read_samples

TOY = '''"""Prepare a split of the toy benchmark. It is one question about one image."""

from pathlib import Path

import numpy as np
from PIL import Image

from seg_research.data.question import BenchmarkQuestion, QuestionTarget
from seg_research.data.reader import BenchmarkReader
from seg_research.data.splits import Split


class Everything:
    def stems(self):
        return {"7"}

    def read(self, stem):
        return np.ones((8, 8), bool)

    def files(self):
        return []


def read(root, split):
    (root / "clip").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / "clip" / "7.png")
    target = QuestionTarget("all", Everything())
    return [BenchmarkQuestion("only", "what?", 0, "the toy", root / "clip", ("7",), (target,))]


SPEC = BenchmarkReader("toy", Path("data/toy"), read, splits=(Split.TRAIN,))
NOTHING = 3
'''


@pytest.fixture
def toy(tmp_path, monkeypatch) -> str:
    """Write a package with one reader in it."""
    package = tmp_path / "toy_readers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    yield "toy_readers"
    for name in ("toy_readers", "toy_readers.toy"):
        sys.modules.pop(name, None)


def test_a_reader_of_ones_own_prepares_a_split(toy, tmp_path, capsys):
    assert main(["data", f"{toy}.toy:SPEC", "--root", str(tmp_path), "--split", "train"]) == 0
    assert "train_6_448_448.parquet: 1 rows" in capsys.readouterr().out
    [sample] = read_samples(tmp_path / "train_6_448_448.parquet")
    assert (sample.sample_id, sample.truth.single().target_id) == ("only", "all")


def test_a_module_in_the_folder_is_a_reader_without_any_other_line(toy, monkeypatch, capsys):
    monkeypatch.setattr(READERS, "_package", toy)
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    assert "toy        Prepare a split of the toy benchmark\n" in capsys.readouterr().out
    assert READERS.find("toy").root.name == "toy"


def test_names_and_summaries_are_listed_without_importing(toy):
    registry = Registry(toy, BenchmarkReader, "reader")
    assert registry.summaries() == {"toy": "Prepare a split of the toy benchmark"}
    assert "toy_readers.toy" not in sys.modules


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mevis", "unknown benchmark reader 'mevis'; there are: okvos, or your own"),
        ("nowhere:SPEC", "No module named 'nowhere'"),
        ("toy_readers.toy:NOTHING", "has no BenchmarkReader 'NOTHING'"),
        ("toy_readers.toy:MISSING", "has no BenchmarkReader 'MISSING'"),
    ],
)
def test_what_is_no_reader_is_refused(toy, name, told):
    with pytest.raises(UsageError, match=told):
        READERS.find(name)


def test_an_unknown_benchmark_is_one_line(capsys):
    assert main(["data", "mevis"]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "mevis" in error
    assert error.count("\n") == 1


def test_the_mini_benchmark_stands_in_the_same_list(capsys):
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    out = capsys.readouterr().out
    assert "  mini       Draw the mini benchmark" in out
    assert "  okvos      Prepare a split of OK-VOS" in out
    with pytest.raises(SystemExit):
        main(["data", "okvos", "--help"])
    assert "--patch_factor" in capsys.readouterr().out
