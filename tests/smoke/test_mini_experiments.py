"""The experiments of docs/results/mini.md, in the small: trained, judged, gone on with and put on a
page.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.verl]

MINI = Path(__file__).parents[2] / "examples" / "train" / "mini"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, MINI / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )


def small_plan() -> tuple[dict, list[str]]:
    """The plan of the page with one experiment of two steps, and that experiment's overrides."""
    plan = yaml.safe_load((MINI / "experiments.yaml").read_text())
    plan["data"] |= {"train": 8, "val": 4, "test": 4}
    plan["judging"] |= {"test": 3}
    plan["versions"]["quick"] = {"steps": 2, "eval_every": 1}
    small = [
        "data.train_batch_size=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.rollout.n=2",
    ]
    small += [
        f"actor_rollout_ref.{key}_micro_batch_size_per_gpu=4"
        for key in ("rollout.log_prob", "actor.ppo")
    ]
    plan["experiments"] = {"hierarchical": small}
    return plan, small


def test_experiments_are_run_gone_on_with_and_told(tmp_path):
    plan, small = small_plan()
    out, path = tmp_path / "out", tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    command = ["--quick", "--plan", path, "--out", out, "--seeds", 0, "--threads", 1]

    done = run("experiments.py", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = out / "runs" / "hierarchical" / "seed0"
    for step in ("step1", "step2"):
        for decoding in ("greedy", "sampled"):
            assert (
                len(json.loads((folder / step / decoding / "result.json").read_text())["samples"])
                == 3
            ), "not the questions to judge on"
    kept = [path.name for path in (folder / "train" / "checkpoints").glob("global_step_*")]
    assert kept == ["global_step_2"], "what was judged is not kept, but for the last"
    assert len(json.loads((folder / "trained.json").read_text())["commit"]) == 40

    # Killed while it judged: only what is missing is done.
    (folder / "finished.json").unlink()
    (folder / "step2" / "sampled" / "result.json").unlink()
    others = folder / "step2" / "greedy" / "result.json"
    before = others.stat().st_mtime_ns
    again = run("experiments.py", *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "$ seg-research train" not in again.stdout
    assert (folder / "finished.json").is_file()
    assert others.stat().st_mtime_ns == before

    assert run("results.py", out, "--out", tmp_path / "page").returncode == 0
    page = (tmp_path / "page" / "mini.md").read_text()
    assert "1 run of 2 steps" in page
    assert "| hierarchical |" in page

    plan["experiments"]["hierarchical"] = [*small, "seg.episode.rewards.preset=outcome_only"]
    path.write_text(yaml.safe_dump(plan))
    refused = run("experiments.py", *command)
    assert refused.returncode == 1
    assert "was trained with other overrides" in refused.stderr
    plan["judging"]["seed"] = 4
    path.write_text(yaml.safe_dump(plan))
    refused = run("experiments.py", *command)
    assert refused.returncode == 1
    assert "holds experiments of another setting" in refused.stderr
    plan["judging"]["seed"] = 3
    path.write_text(yaml.safe_dump(plan))
    (out / "manifest.json").write_text("{}")
    refused = run("experiments.py", *command)
    assert "holds experiments of another setting" in refused.stderr, (
        "a folder of before the manifest had this form"
    )
