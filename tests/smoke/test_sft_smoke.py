"""A real cold start: verl's SFT trainer on episodes of the scripted expert, interrupted and taken
up again; then GRPO from what it left.
"""

import json
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")
import torch
from safetensors.torch import load_file

from seg_research.cli.main import main
from seg_research.policies.processor import load_processor
from seg_research.training.sft.dataset import SftDataset

pytestmark = [pytest.mark.verl, pytest.mark.slow]

EPISODES, STEPS = 4, 4


@pytest.fixture(scope="module")
def episodes(mini, tiny_folder, search_url, tmp_path_factory) -> Path:
    """What the expert says about the first questions, at the picture sizes of the tiny model."""
    out = tmp_path_factory.mktemp("expert") / "predictions.jsonl"
    command = [
        "predict",
        "--data",
        mini.parquet("train"),
        "--scripted",
        "expert",
        "--settings",
        tiny_folder,
        "--search-url",
        search_url,
    ]
    assert main([str(word) for word in [*command, "--limit", EPISODES, "--out", out]]) == 0
    return out


@pytest.fixture(scope="module")
def arguments(episodes, tiny_folder, tmp_path_factory) -> list[str]:
    values = {
        "model": "tiny",
        "hardware": "cpu",
        "model.path": tiny_folder,
        "data.train_files": episodes,
        # Each step sees every episode, so that its loss is known; and each step ends an epoch,
        # where taking up a run is hardest.
        "data.train_batch_size": EPISODES,
        "data.micro_batch_size_per_gpu": EPISODES // 2,
        "trainer.total_epochs": STEPS,
        "trainer.save_freq": 2,
        "seg.threads": 2,
        "seg.run_dir": tmp_path_factory.mktemp("sft") / "run",
    }
    return ["sft", *(f"{key}={value}" for key, value in values.items())]


@pytest.fixture(scope="module")
def run_dir(arguments) -> Path:
    """The folder of a run that was stopped half-way and went on."""
    assert main([*arguments, f"trainer.total_training_steps={STEPS // 2}"]) == 0
    assert main(arguments) == 0
    return Path(arguments[-1].partition("=")[2])


@pytest.fixture(scope="module")
def losses(run_dir) -> list[float]:
    lines = [
        line
        for name in ("metrics.0.jsonl", "metrics.jsonl")
        for line in (run_dir / name).read_text().splitlines()
    ]
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1)), (
        "each step once: the second attempt went on behind the first"
    )
    return [row["data"]["train/loss"] for row in rows]


def load(folder):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()


@pytest.fixture(scope="module")
def samples(run_dir):
    class Config:
        picture_cache_gb = 0.0

    processor = load_processor(run_dir / "policy")
    data = SftDataset(str(run_dir / "train.parquet"), processor.tokenizer, Config, processor)
    image_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return [
        {
            "input_ids": row["input_ids"][None],
            "mask": row["loss_mask"],
            "mm_token_type_ids": (row["input_ids"] == image_id).long()[None],
            **row["multi_modal_inputs"],
        }
        for row in (data[i] for i in range(len(data)))
    ]


@torch.no_grad()
def logits_of(model, sample):
    return model(**{name: value for name, value in sample.items() if name != "mask"}).logits[0]


def test_the_first_loss_is_that_of_the_models_own_turns_alone(losses, tiny_folder, samples):
    model = load(tiny_folder)
    total, count = 0.0, 0
    for sample in samples:
        logprobs = (
            logits_of(model, sample)
            .log_softmax(-1)[:-1]
            .gather(1, sample["input_ids"][0, 1:, None])[:, 0]
        )
        said = sample["mask"][1:] == 1
        total, count = total - logprobs[said].sum().item(), count + int(said.sum())
    assert losses[0] == pytest.approx(total / count, rel=1e-4)


def test_the_loss_falls(losses):
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.3


def test_the_policy_holds_the_trainers_weights(run_dir, tiny_folder, samples):
    policy, trained = run_dir / "policy", load(tiny_folder)
    (state,) = (run_dir / "checkpoints" / f"global_step_{STEPS}").glob(
        "model_world_size_1_rank_0.pt"
    )
    shards = torch.load(state, weights_only=False)
    trained.load_state_dict(
        {
            name: getattr(value, "full_tensor", lambda value=value: value)()
            for name, value in shards.items()
        }
    )
    assert torch.equal(logits_of(trained, samples[0]), logits_of(load(policy), samples[0]))
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_folder, policy))
    assert any((before[name] != after[name]).any() for name in before)
    assert (policy / "episode.json").read_text() == (tiny_folder / "episode.json").read_text()


def test_a_finished_run_is_not_run_again(run_dir, arguments, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert main(arguments) == 0
    assert "finished" in capsys.readouterr().out
    assert {
        path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()
    } == before


def test_reinforcement_learning_goes_on_from_it(run_dir, mini, search_url, tiny_folder, tmp_path):
    values = {
        "hardware": "cpu",
        "search": "server",
        "seg.search.url": search_url,
        "seg.run_dir": tmp_path / "grpo",
        "seg.threads": 2,
        "actor_rollout_ref.model.path": run_dir / "policy",
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "data.train_batch_size": 2,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 2,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 4,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 4,
        "actor_rollout_ref.rollout.n": 2,
        "trainer.total_training_steps": 1,
    }
    assert main(["train", *(f"{key}={value}" for key, value in values.items())]) == 0
    (line,) = (tmp_path / "grpo" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["training/rollout_probs_diff_max"] <= 1e-3
    started, ended, never = (
        load_file(folder / "model.safetensors")
        for folder in (run_dir / "policy", tmp_path / "grpo" / "policy", tiny_folder)
    )

    def farthest(these, those):
        return max((these[name] - those[name]).abs().max().item() for name in these)

    # One step of Adam moves no weight much farther than the learning rate; the cold start moved
    # them in four steps of three times that.
    assert farthest(started, ended) <= 2e-3 < farthest(started, never)
