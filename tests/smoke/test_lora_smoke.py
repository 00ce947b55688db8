"""A LoRA run with the settings of `hardware=1gpu_lora`, carried over to the CPU, and what it
exports.
"""

import json
from importlib import resources

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
import yaml
from safetensors.torch import load_file

from seg_research.cli.main import main
from seg_research.training.launch.config import leaves

pytestmark = [pytest.mark.slow, pytest.mark.verl]

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
def finished(new_run):
    # The text tower of the tiny model is narrower than the rank; the rate is that of a test of two
    # steps.
    run = new_run({**lora_settings(), "actor_rollout_ref.actor.optim.lr": 1e-2})
    run.complete()
    return run


@pytest.fixture(scope="module")
def probe(finished, tiny_processor):
    return torch.tensor(
        [
            tiny_processor.tokenizer.encode(
                "who wears the emblem of the harbour town?", add_special_tokens=False
            )
        ]
    )


def logits(model, probe):
    with torch.no_grad():
        return model(input_ids=probe, use_cache=False).logits


def test_rollout_and_trainer_agreed_on_the_merged_weights(finished):
    assert len(finished.metrics()) == 2
    assert all(step["training/rollout_probs_diff_max"] <= 1e-3 for step in finished.metrics())
    assert max(step["actor/grad_norm"] for step in finished.metrics()) > 0


def test_the_export_is_the_base_with_the_adapter_and_not_the_base(finished, probe, talkative_model):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    policy = finished.folder / "policy"
    base = AutoModelForImageTextToText.from_pretrained(talkative_model, dtype=torch.float32)
    plain = logits(base, probe)
    adapted = logits(PeftModel.from_pretrained(base, policy / "adapter"), probe)
    merged = logits(AutoModelForImageTextToText.from_pretrained(policy, dtype=torch.float32), probe)
    assert (merged - adapted).abs().max() <= 1e-4 * max(1.0, merged.abs().max())
    assert (merged - plain).abs().max() > 1e-3, "what was trained is not in the export"
    before, after = (
        load_file(talkative_model / "model.safetensors"),
        load_file(policy / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert not any("visual" in name for name in changed), "adapters of the language model only"


def test_the_export_predicts(finished, mini, search_url, tmp_path):
    out = tmp_path / "predictions.jsonl"
    command = [
        "predict",
        "--data",
        str(mini.parquet("test")),
        "--model",
        str(finished.folder / "policy"),
        "--search-url",
        search_url,
    ]
    assert main([*command, "--out", str(out), "--limit", "2", "--threads", "1"]) == 0
    assert len(out.read_text().splitlines()) == 2


def test_checkpoints_hold_adapters_only(finished):
    (weights,) = (finished.folder / "checkpoints" / "global_step_2" / "actor").glob(
        "model_world_size_1_rank_0.pt"
    )
    assert {".lora_" in name for name in torch.load(weights, weights_only=False)} == {True}
