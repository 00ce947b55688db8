"""One real training run with DAPO in which no group has a spread: each is replaced, the cap is met,
and the guard ends the run.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from seg_research.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.verl]

PROMPTS, ROLLOUTS, ROUNDS = 2, 4, 2


@pytest.fixture(scope="module")
def stopped(one_video, mini, talkative_model, search_url, tmp_path_factory) -> tuple[Path, int]:
    """The run folder, and how the command ended."""
    run_dir = tmp_path_factory.mktemp("dapo") / "run"
    values = {
        "algorithm": "dapo",
        "hardware": "cpu",
        "search": "server",
        "seg.search.url": search_url,
        "seg.run_dir": run_dir,
        "seg.dapo.max_gen_rounds": ROUNDS,
        "seg.groups.min_outcome_spread": 100,  # more than any reward
        "seg.guards.patience": 2,
        "actor_rollout_ref.model.path": talkative_model,
        "data.train_files": one_video,
        "data.val_files": mini.parquet("val"),
        "data.train_batch_size": PROMPTS,
        "actor_rollout_ref.actor.ppo_mini_batch_size": PROMPTS,
        "actor_rollout_ref.rollout.n": ROLLOUTS,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": PROMPTS * ROLLOUTS,
        "actor_rollout_ref.rollout.temperature": 0.6,
        "trainer.total_training_steps": 3,
        "trainer.total_epochs": 3,
    }
    code = main(["train", *(f"{key}={value}" for key, value in values.items())])
    assert (run_dir / "trainer.log").exists()
    return run_dir, code


@pytest.fixture(scope="module")
def metrics(stopped) -> list[dict]:
    return [
        json.loads(line)["data"] for line in (stopped[0] / "metrics.jsonl").read_text().splitlines()
    ]


def test_each_group_without_a_spread_was_replaced_until_the_cap(stopped, metrics):
    records = [
        json.loads(line)
        for path in (stopped[0] / "trajectories").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    groups = {(r["global_step"], r["uid"]) for r in records}
    assert Counter(step for step, _ in groups) == {1: PROMPTS * ROUNDS, 2: PROMPTS * ROUNDS}
    (first,) = metrics
    names = ("rounds", "cap_hit", "flat_groups", "trained_groups")
    assert [first[f"seg/dapo/{name}"] for name in names] == [ROUNDS, 1, PROMPTS * ROUNDS, 0]
    assert first["seg/groups/no_signal"] == 1
    assert first["critic/advantages/max"] == first["critic/advantages/min"] == 0


def test_rollout_and_trainer_are_compared_turn_by_turn(metrics):
    (first,) = metrics
    gaps = {name: value for name, value in first.items() if name.startswith("seg/logprob_gap/")}
    assert {
        "seg/logprob_gap/turn_1",
        "seg/logprob_gap/turn_2",
        "seg/logprob_gap/mean",
        "seg/logprob_gap/max",
    } <= gaps.keys()
    assert 0 < max(gaps.values()) == gaps["seg/logprob_gap/max"] <= 1e-3
    assert {
        f"seg/mean/{name}"
        for name in ("truncated", "tool_errors", "empty_turns", "cache_hits", "overlong")
    } <= first.keys()


def test_the_guard_ended_the_run_and_left_the_worst_trajectories(stopped, capsys):
    run_dir, code = stopped
    assert code != 0
    assert (
        "step 2: in no group any rollout earned more than another"
        in (run_dir / "stopped.txt").read_text()
    )
    worst = [
        json.loads(line) for line in (run_dir / "worst_trajectories.jsonl").read_text().splitlines()
    ]
    assert {r["global_step"] for r in worst} == {2}
    assert main(["report", "--run", str(run_dir)]) == 0
    assert worst[0]["id"] in (run_dir / "report.html").read_text()
