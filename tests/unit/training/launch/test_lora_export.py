"""What leaves a LoRA run is the base with the adapter merged in; anything else is refused."""

import json

import pytest

pytest.importorskip("peft", reason="adapters need the train extra")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from seg_common.errors import InfraError
from seg_research.training.launch.lora_export import (
    LOGIT_TOLERANCE,
    _digests,
    _load,
    _whole,
    adapter_weights,
    export_lora,
    verify_export,
)

RANK, ALPHA = 4, 8


def write_checkpoint(folder, base, *, scale: float, world: int = 1):
    """Adapters on the language model's projections, as verl leaves them; `scale` 0 is an adapter
    that learned nothing.
    """
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", exclude_modules=".*visual.*"
    )
    adapted = get_peft_model(model, config)
    torch.manual_seed(0)
    weights = {
        name: tensor.clone() for name, tensor in adapted.state_dict().items() if ".lora_" in name
    }
    for name, tensor in weights.items():
        if ".lora_B." in name:
            tensor.normal_(std=1.0).mul_(scale)
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(world):
        torch.save(weights, folder / f"model_world_size_{world}_rank_{rank}.pt")
        torch.save({}, folder / f"optim_world_size_{world}_rank_{rank}.pt")
    (folder / "lora_train_meta.json").write_text(
        json.dumps({"r": RANK, "lora_alpha": ALPHA, "task_type": "CAUSAL_LM"})
    )
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_folder, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("lora") / "actor", tiny_folder, scale=0.05)


@pytest.fixture
def exported(checkpoint, tiny_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    return out, export_lora(checkpoint, tiny_folder, out)


@pytest.fixture
def verify(exported, tiny_folder):
    """Return a function that verifies the export again, after something was done to it."""
    out, report = exported
    merged = _digests(_load(out))
    return lambda: verify_export(
        out, tiny_folder, _digests(_load(tiny_folder)), merged, report.num_adapted
    )


def test_merged_model_and_adapter_say_the_same_and_not_what_the_base_says(
    exported, checkpoint, tiny_folder
):
    out, report = exported
    assert report.num_changed == report.num_adapted == len(adapter_weights(checkpoint)) // 2 > 0
    assert (
        report.adapter_effect > 0.01 > LOGIT_TOLERANCE * report.largest_logit > report.merge_error
    )
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        merged = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)(
            input_ids=ids
        ).logits
        base = AutoModelForImageTextToText.from_pretrained(tiny_folder, dtype=torch.float32)
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, out / "adapter")(input_ids=ids).logits
    assert (merged - adapted).abs().max() < 1e-4
    assert (merged - plain).abs().max() > 0.01


def test_the_adapter_knows_rank_scale_and_exactly_the_modules_it_has_weights_for(
    exported, tiny_folder
):
    out, report = exported
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (RANK, ALPHA)
    loaded = PeftModel.from_pretrained(_load(tiny_folder), out / "adapter")
    adapted = {name for name, _ in loaded.named_modules() if name.endswith("lora_B.default")}
    assert len(adapted) == report.num_adapted
    assert not any("visual" in name for name in adapted)


def test_a_sound_export_stands_another_look(exported, verify):
    assert verify() == exported[1]


def test_an_export_that_is_the_base_is_refused(exported, verify, tiny_folder):
    _load(tiny_folder).save_pretrained(exported[0])
    with pytest.raises(InfraError, match="are those of the base"):
        verify()


def test_an_adapter_that_learned_nothing_is_refused(tiny_folder, tmp_path):
    empty = write_checkpoint(tmp_path / "actor", tiny_folder, scale=0.0)
    with pytest.raises(InfraError, match="learned nothing"):
        export_lora(empty, tiny_folder, tmp_path / "out")


def test_a_weight_that_was_not_merged_is_refused_even_where_the_probe_does_not_feel_it(
    exported, verify
):
    out, _ = exported
    weights = load_file(out / "model.safetensors")
    (name, *_) = [name for name in weights if name.endswith("q_proj.weight")]
    weights[name] = weights[name] * 1.01
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InfraError, match="1 weights on disk are not those that were merged"):
        verify()


def test_an_adapter_that_says_something_else_is_refused(exported, verify):
    out, _ = exported
    weights = {
        name: 1.1 * tensor
        for name, tensor in load_file(out / "adapter" / "adapter_model.safetensors").items()
    }
    save_file(weights, out / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InfraError, match="differ by"):
        verify()


def test_a_merge_that_was_rounded_to_bf16_is_refused(exported, verify):
    out, _ = exported
    _load(out).to(torch.bfloat16).save_pretrained(out)
    with pytest.raises(InfraError, match="weights changed, but only"):
        verify()


def test_a_checkpoint_without_adapters_or_with_a_missing_rank_is_refused(
    checkpoint, tiny_folder, tmp_path
):
    full = write_checkpoint(tmp_path / "two", tiny_folder, scale=0.1, world=2)
    assert adapter_weights(full).keys() == adapter_weights(checkpoint).keys()
    (full / "model_world_size_2_rank_0.pt").unlink()
    with pytest.raises(InfraError, match=r"ranks \[1\]"):
        adapter_weights(full)
    plain = tmp_path / "plain"
    plain.mkdir()
    torch.save({"model.weight": torch.zeros(1)}, plain / "model_world_size_1_rank_0.pt")
    with pytest.raises(InfraError, match="no adapters"):
        adapter_weights(plain)


def test_the_pieces_of_two_ranks_are_put_together_along_the_dimension_they_were_cut(monkeypatch):
    from seg_research.training.launch import lora_export

    class Piece:
        def __init__(self, local, placement):
            self.placements, self.local = (placement,), local

        def to_local(self):
            return self.local

    monkeypatch.setattr(lora_export, "DTensor", Piece)
    whole = torch.arange(12.0).reshape(4, 3)
    cut = [Piece(part, torch.distributed.tensor.Shard(0)) for part in whole.split(2)]
    assert torch.equal(_whole(cut), whole)
    copies = [Piece(whole, torch.distributed.tensor.Replicate()) for _ in range(2)]
    assert torch.equal(_whole(copies), whole)
