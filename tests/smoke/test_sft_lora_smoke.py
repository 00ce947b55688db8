"""A real cold start: verl's SFT trainer on episodes of the scripted expert, interrupted and taken
up again; then GRPO from what it left, with the LoRA settings of `hardware=1gpu_lora` carried over
to the CPU, and what that exports.
"""

import json
from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")
import torch
import yaml
from safetensors.torch import load_file

from seg_research.cli.main import main
from seg_research.policies.processor import load_processor
from seg_research.training.launch.config import leaves
from seg_research.training.sft.dataset import SftDataset

pytestmark = [pytest.mark.verl, pytest.mark.slow]

EPISODES, STEPS = 4, 4


@pytest.fixture(scope="module")
def episodes(mini, tiny_folder, search_url, tmp_path_factory) -> Path:
    """What the expert says about the first questions, at the image sizes of the tiny model."""
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
        image_cache_gb = 0.0

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


CARRIED = (
    "lora_rank",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "lora.merge",
    "checkpoint.save_contents",
    "checkpoint.save_lora_only",
)


def lora_settings() -> dict[str, str]:
    """What makes the group a LoRA run, as overrides; its memory settings mean nothing on a CPU."""
    group = leaves(
        yaml.safe_load(
            resources.files("seg_research.configs").joinpath("hardware/1gpu_lora.yaml").read_text()
        )
    )
    carried = {
        key: value
        for key, value in group.items()
        if key.endswith(tuple(f".{name}" for name in CARRIED))
    }
    assert len(carried) == len(CARRIED)
    assert carried["actor_rollout_ref.model.lora_rank"] > 0
    # Hydra knows no key that verl's own files do not name.
    plus = {"actor_rollout_ref.actor.checkpoint.save_lora_only"}
    return {("+" if key in plus else "") + key: json.dumps(value) for key, value in carried.items()}


@pytest.fixture(scope="module")
def with_lora(run_dir, mini, new_run):
    """A run of two steps from the cold start's policy."""
    changes = {
        "actor_rollout_ref.model.path": run_dir / "policy",
        "data.train_files": mini.parquet("train"),
        # The text tower of the tiny model is narrower than the rank; the rate is that of a test of
        # two steps.
        "actor_rollout_ref.actor.optim.lr": 1e-2,
    }
    run = new_run(lora_settings() | changes)
    run.complete()
    return run


@pytest.fixture(scope="module")
def probe(tiny_processor):
    question = "who wears the emblem of the harbour town?"
    return torch.tensor([tiny_processor.tokenizer.encode(question, add_special_tokens=False)])


@torch.no_grad()
def text_logits(model, probe):
    return model(input_ids=probe, use_cache=False).logits


def test_rollout_and_trainer_agreed_on_the_merged_weights(with_lora):
    metrics = with_lora.metrics()
    assert len(metrics) == 2
    assert all(step["training/rollout_probs_diff_max"] <= 1e-3 for step in metrics)
    assert max(step["actor/grad_norm"] for step in metrics) > 0


def test_the_export_is_the_cold_start_with_the_adapter(with_lora, run_dir, probe):
    from peft import PeftModel

    policy, base = with_lora.folder / "policy", load(run_dir / "policy")
    plain = text_logits(base, probe)
    adapted = text_logits(PeftModel.from_pretrained(base, policy / "adapter"), probe)
    merged = text_logits(load(policy), probe)
    assert (merged - adapted).abs().max() <= 1e-4 * max(1.0, merged.abs().max())
    assert (merged - plain).abs().max() > 1e-3, "what was trained is not in the export"


def test_reinforcement_learning_went_on_from_the_cold_start(with_lora, run_dir, tiny_folder):
    untrained, before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tiny_folder, run_dir / "policy", with_lora.folder / "policy")
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert not any("visual" in name for name in changed), "adapters of the language model only"
    kept = before.keys() - changed
    assert any(not untrained[name].equal(after[name]) for name in kept), "what SFT learnt is there"


def test_the_export_predicts(with_lora, mini, search_url, tmp_path):
    out = tmp_path / "predictions.jsonl"
    command = ["predict", "--data", mini.parquet("test"), "--model", with_lora.folder / "policy"]
    command += ["--search-url", search_url, "--out", out, "--limit", 2, "--threads", 1]
    assert main([str(word) for word in command]) == 0
    assert len(out.read_text().splitlines()) == 2


def test_checkpoints_hold_adapters_only(with_lora):
    (weights,) = (with_lora.folder / "checkpoints" / "global_step_2" / "actor").glob(
        "model_world_size_1_rank_0.pt"
    )
    assert {".lora_" in name for name in torch.load(weights, weights_only=False)} == {True}
