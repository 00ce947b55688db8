"""`seg-research model` hands out the packaged tiny model as a folder of one's own, and touches
nothing that is there.
"""

import pytest

from seg_research.cli.main import main
from seg_research.mini import COLD_START


def test_the_packaged_model_is_copied_once(tmp_path, capsys):
    out = tmp_path / "folder" / "tiny"
    assert main(["model", "--out", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in COLD_START.iterdir()
    }
    assert list(out.parent.iterdir()) == [out]
    (out / "episode.json").write_text("mine")
    assert main(["model", "--out", str(out)]) == 0
    assert "already there" in capsys.readouterr().out
    assert (out / "episode.json").read_text() == "mine"


def test_a_folder_of_other_things_is_left_alone(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["model", "--out", str(tmp_path)]) != 0
    assert "holds no model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--pretrain", "0"],
        ["--pretrain", "5", "--clips", "0"],
        ["--pretrain", "5", "--grounding", "0"],
    ],
)
def test_a_pretraining_of_no_length_is_refused(tmp_path, capsys, wrong):
    assert main(["model", "--out", str(tmp_path / "tiny"), *wrong]) != 0
    assert "expected at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
