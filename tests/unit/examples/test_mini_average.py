"""The mean of two checkpoints is what it says, and other models are refused."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="models need the train extra")

import torch
from safetensors.torch import load_file, save_file

PROGRAM = Path(__file__).parents[3] / "examples" / "train" / "mini" / "average.py"


def checkpoint(folder: Path, value: float, size: int = 2) -> Path:
    folder.mkdir()
    save_file({"weight": torch.full((size,), value)}, folder / "model.safetensors")
    (folder / "config.json").write_text(folder.name)
    return folder


def run(*folders: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, *folders], capture_output=True, text=True, check=False
    )


def test_weights_are_averaged_and_the_rest_is_the_seconds(tmp_path):
    first, second, out = (
        checkpoint(tmp_path / "first", 1.0),
        checkpoint(tmp_path / "second", 4.0),
        tmp_path / "out",
    )
    assert run(first, second, out).returncode == 0
    assert load_file(out / "model.safetensors")["weight"].tolist() == [2.5, 2.5]
    assert (out / "config.json").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out", "second"]


def test_weights_of_another_model_are_refused(tmp_path):
    done = run(
        checkpoint(tmp_path / "first", 1.0),
        checkpoint(tmp_path / "second", 1.0, size=3),
        tmp_path / "out",
    )
    assert done.returncode == 1
    assert "not of one model" in done.stderr
    assert not (tmp_path / "out").exists()
