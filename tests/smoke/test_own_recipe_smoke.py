"""A recipe unlike ours (examples/own_recipe) goes the whole road without a line outside its folder:
expert, cold start, a step of GRPO, prediction, masks, measures, re-scoring, reports.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from seg_research.data.rows import read_samples

pytest.importorskip("verl", reason="verl comes with the train extra")
pytestmark = [pytest.mark.verl, pytest.mark.slow]

NAME = "own_recipe:TwoParts"
EXAMPLES = Path(__file__).parents[2] / "examples"
CPU = ["model=tiny", "hardware=cpu", f"seg.episode.recipe={NAME}"]


@dataclass(frozen=True)
class Road:
    """The folder of everything that is made on the way."""

    folder: Path

    @property
    def expert(self) -> Path:
        return self.folder / "expert" / "predictions.jsonl"

    @property
    def policy(self) -> Path:
        return self.folder / "policy" / "predictions.jsonl"


def command(*words: object) -> str:
    """Run a command as a user does, with the example's folder in PYTHONPATH."""
    path = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "seg_research.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, f"{words[0]}: {done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def model(mini, tmp_path_factory) -> Path:
    """A tiny model whose tokenizer knows the recipe's words, with the recipe's settings."""
    from seg_research.mini.tiny_model import TinySize, build_model, build_tokenizer, save_tiny
    from seg_research.mini.tiny_settings import tiny_settings
    from seg_research.recipes.registry import build_recipe, settings_from

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        tiny = tiny_settings().to_json()
        shared = {key: tiny[key] for key in ("max_prompt_tokens", "limits", "view")}
        settings = settings_from({"recipe": NAME, **shared}, "test")
        recipe, texts = build_recipe(settings), []
        for sample in read_samples(mini.parquet("train")):
            turns = recipe.demonstrate(sample)
            texts += [message.plain() for message in recipe.prompt(sample)]
            texts += [recipe.grammar.write(turn.action, turn.thinking) for turn in turns] * 4
    tokenizer = build_tokenizer(texts, TinySize().vocab)
    folder = tmp_path_factory.mktemp("own_recipe") / "model"
    save_tiny(build_model(tokenizer, TinySize(), seed=0), tokenizer, folder)
    settings.save(folder)
    return folder


@pytest.fixture(scope="module")
def road(mini, model, search_url, tmp_path_factory) -> Road:
    """Go all the way once."""
    road = Road(tmp_path_factory.mktemp("road"))
    search = ["--search-url", search_url]
    train = ["predict", "--data", mini.parquet("train"), "--scripted", "expert"]
    command(*train, "--settings", model, *search, "--limit", 4, "--out", road.expert)
    cold_start = {
        "model.path": model,
        "data.train_files": road.expert,
        "data.train_batch_size": 4,
        "data.micro_batch_size_per_gpu": 2,
        "trainer.total_epochs": 1,
        "seg.threads": 1,
        "seg.run_dir": road.folder / "sft",
    }
    command("sft", *CPU, *(f"{key}={value}" for key, value in cold_start.items()))
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    grpo = {
        "search": "server",
        "seg.search.url": search_url,
        "seg.threads": 1,
        "algorithm.adv_estimator": "seg_grpo",
        "actor_rollout_ref.model.path": road.folder / "sft" / "policy",
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "data.train_batch_size": 2,
        f"{actor}.ppo_mini_batch_size": 2,
        f"{actor}.ppo_micro_batch_size_per_gpu": 2,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": 2,
        f"{rollout}.n": 2,
        "trainer.total_training_steps": 1,
        "seg.run_dir": road.folder / "grpo",
    }
    command("train", *CPU, *(f"{key}={value}" for key, value in grpo.items()))
    trained = road.folder / "grpo" / "policy"
    test = ["predict", "--data", mini.parquet("test"), "--model", trained]
    command(*test, *search, "--limit", 2, "--out", road.policy)
    return road


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_expert_s_two_parts_become_masks_that_are_measured(road, mini):
    for row in lines(road.expert):
        assert next(turn["action"]["kind"] for turn in row["turns"] if turn["action"]) == "look"
        assert len(row["objects"]) == 2
        assert row["score"] == pytest.approx(2.5)
    command("segment", road.expert, "--backend", "grabcut", "--workers", 1)
    shown = command(
        "evaluate", road.expert, "--truth", mini.root / "train_meta_mapping.json", "--workers", 1
    )
    assert "over the 4 samples that have masks" in shown


def test_records_are_scored_anew_alike(road, model):
    shown = command("score", road.expert, "--settings", model)
    assert "disagreements with recorded numbers: 0 of 4 rows" in shown


def test_the_policy_s_episodes_are_recorded_and_judged(road, mini):
    trained = lines(next((road.folder / "grpo" / "trajectories").glob("*.jsonl")))
    assert {name for row in trained for name in row["rewards"]} >= {"overlap", "looked"}
    assert len(lines(road.policy)) == 2
    command("segment", road.policy, "--backend", "grabcut", "--workers", 1)
    command(
        "evaluate", road.policy, "--truth", mini.root / "test_meta_mapping.json", "--workers", 1
    )


@pytest.mark.parametrize("run", ["expert", "policy"])
def test_the_report_shows_its_episodes(road, run):
    folder = road.folder / run
    command("report", "--run", folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "overlap" in page
    if run == "expert":
        assert "reply" in page
        assert "both halves" in page, "the thought"
