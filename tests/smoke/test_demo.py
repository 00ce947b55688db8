"""The whole demo, shorter: every stage, its files, and what it promises about the ceiling and about
being run again.
"""

import json

import pytest

from seg_research.cli.main import main

SHORT = ["--steps", "2", "--train-questions", "24", "--test-questions", "8"]


@pytest.mark.slow
@pytest.mark.verl
def test_demo_runs_every_stage_and_then_has_nothing_left_to_do(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *SHORT]) == 0
    first = capsys.readouterr().out
    assert "mean training reward, first and last" in first
    rows = {row["name"]: row for row in json.loads((out / "summary.json").read_text())["rows"]}
    assert set(rows) == {"expert", "before RL", "after RL"}
    assert rows["expert"]["JF"] >= 85, "the ceiling of the mask back-end"
    assert rows["expert"]["valid"] == 1.0
    assert rows["expert"]["missing"] == 0
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    before = {path: path.read_bytes() for path in out.rglob("predictions.jsonl")}
    assert len(before) == 3

    assert main(["demo", "--out", str(out), *SHORT]) == 0
    assert {path: path.read_bytes() for path in out.rglob("predictions.jsonl")} == before
    assert "this run is finished" in capsys.readouterr().out
