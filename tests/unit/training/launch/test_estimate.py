"""Estimates follow their stated formula; the shapes they start from are the real models'."""

import math

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from omegaconf import OmegaConf

from seg_common.errors import UsageError
from seg_research.data.rows import read_samples
from seg_research.training.launch.config import compose_config
from seg_research.training.launch.estimate import (
    describe,
    describe_learning,
    episode_tokens,
    estimate_memory,
)
from seg_research.training.launch.model_shape import PUBLISHED, model_shape
from seg_research.training.sft.config import compose_sft

NAMES = {
    "qwen3vl_4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3vl_8b": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen2_5vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct",
}


def composed(*choice, **more):
    given = {"data.train_files": "a", "data.val_files": "b", "seg.search.url": "http://a:1", **more}
    return compose_config([*choice, *(f"{key}={value}" for key, value in given.items())])


@pytest.fixture(scope="module")
def eight_gpus():
    return composed("model=qwen3vl_8b", "hardware=8x80g", "rollout=vllm", "algorithm=dapo")


def meta_model(name):
    """Build a model of the public config.json without its numbers."""
    import torch
    import transformers

    shape = PUBLISHED[name]
    text = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
    }
    vision = {
        "Qwen/Qwen3-VL-4B-Instruct": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "Qwen/Qwen3-VL-8B-Instruct": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "Qwen/Qwen2.5-VL-7B-Instruct": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "patch_size": 14,
        },
    }[name]
    family = "Qwen2_5_VL" if "2.5" in name else "Qwen3VL"
    if family == "Qwen3VL":
        text["head_dim"] = shape.head_dim
        vision |= {"patch_size": 16, "num_position_embeddings": 2304}
    vision |= {
        "num_heads": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": shape.hidden,
    }
    config = getattr(transformers, f"{family}Config")(
        text_config=text | {"tie_word_embeddings": shape.tied},
        vision_config=vision,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    model.tie_weights()
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shapes_are_those_of_the_published_models(name):
    model, shape = meta_model(name), PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) == shape.num_params
    layer = sum(p.numel() for p in model.model.language_model.layers[0].parameters())
    assert math.isclose(layer, shape.layer_params, rel_tol=1e-3), (
        "norms and biases are all that is left out"
    )


@pytest.mark.parametrize("model", NAMES)
def test_the_configured_model_is_one_of_them(model):
    assert (
        composed(f"model={model}", "hardware=8x80g", "rollout=vllm").actor_rollout_ref.model.path
        == NAMES[model]
    )


def test_8b_on_eight_gpus_is_within_a_fifth_of_the_formula_done_by_hand(eight_gpus):
    """8.77e9 parameters, 8 devices, 8,192 tokens, layers of 193e6, embedding and head of 622e6
    each, 36 layers of 4,096.
    """
    estimate = estimate_memory(eight_gpus, PUBLISHED[NAMES["qwen3vl_8b"]])
    by_hand = {
        "weights": 4.4,
        "gradients": 4.4,
        "optimiser": 8.8,
        "gathered": 2 * (2 * 0.193 + 1.244),
        "activations": 2 * 8192 * (36 * 4096 + 2 * (4 * 4096 + 2 * 40 * 128 + 3 * 12288)) / 1e9,
        "logits": 6 * 8192 * 151_936 / 1e9,
        "other": 2.0,
    }
    assert estimate.update.keys() == by_hand.keys()
    for part, wanted in by_hand.items():
        assert math.isclose(estimate.update[part], wanted, rel_tol=0.2), part
    assert estimate.rollout == pytest.approx(
        {"weights": 4.4, "optimiser": 8.8, "engine": 32.0, "other": 2.0}, rel=0.2
    )
    assert math.isclose(estimate.peak, 47.1, rel_tol=0.2)
    assert math.isclose(estimate.engine_weights, 8.8, rel_tol=0.2)
    assert math.isclose(
        estimate.cache_tokens, 2 * (32.0 - 8.8 - 2.0) * 1e9 / (2 * 2 * 36 * 8 * 128), rel_tol=0.2
    ), "two devices hold it"
    assert estimate.complaint is None


@pytest.mark.parametrize(
    ("hardware", "model", "fits"),
    [
        ("8x80g", "qwen3vl_4b", True),
        ("8x80g", "qwen2_5vl_7b", True),
        ("8x48g", "qwen3vl_4b", True),
        ("8x48g", "qwen3vl_8b", True),
        ("multinode", "qwen3vl_8b", True),
        ("1x80g", "qwen3vl_4b", True),
        ("1x80g", "qwen3vl_8b", True),
        ("1gpu_lora", "qwen3vl_4b", True),
        ("1gpu_lora", "qwen3vl_8b", False),
    ],
)
def test_what_fits_where(hardware, model, fits):
    config = composed(f"hardware={hardware}", f"model={model}", "rollout=vllm")
    assert (estimate_memory(config, PUBLISHED[NAMES[model]]).complaint is None) == fits


def test_every_lever_moves_its_part(eight_gpus):
    def parts(**changes):
        config = eight_gpus.copy()
        for key, value in changes.items():
            OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
        return estimate_memory(config, PUBLISHED[NAMES["qwen3vl_8b"]])

    before = parts()
    actor = "actor_rollout_ref__actor__"
    assert parts(trainer__nnodes=2).update["weights"] == before.update["weights"] / 2
    offloaded = parts(
        **{
            f"{actor}fsdp_config__param_offload": True,
            f"{actor}fsdp_config__optimizer_offload": True,
        }
    )
    assert (offloaded.update, offloaded.rollout["weights"], offloaded.rollout["optimiser"]) == (
        before.update,
        0,
        0,
    )
    assert offloaded.host == pytest.approx(8 * (4.38 + 8.77), rel=0.01)
    streamed = parts(**{f"{actor}fsdp_config__offload_policy": True})
    assert streamed.update["weights"] == streamed.update["optimiser"] == 0
    adapters = parts(actor_rollout_ref__model__lora_rank=64)
    assert adapters.update["optimiser"] < before.update["optimiser"] / 20
    assert adapters.update["weights"] > before.update["weights"]
    halved = parts(**{f"{actor}ppo_max_token_len_per_gpu": 4096})
    assert halved.update["logits"] == before.update["logits"] / 2
    assert (
        parts(actor_rollout_ref__model__enable_gradient_checkpointing=False).update["activations"]
        > 3 * before.update["activations"]
    )
    assert (
        parts(actor_rollout_ref__rollout__tensor_model_parallel_size=1).engine_weights
        == 2 * before.engine_weights
    )
    tight = parts(actor_rollout_ref__rollout__gpu_memory_utilization=0.1)
    assert "room for 0 tokens" in tight.complaint
    assert "do not fit into 24 GB" in parts(seg__gpu_gb=24).complaint


def test_the_tiny_model_is_read_from_its_folder(tiny_folder, mini):
    import torch
    from transformers import AutoModelForImageTextToText

    shape = model_shape(str(tiny_folder))
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder, dtype=torch.float32)
    assert shape.num_params == sum(p.numel() for p in model.parameters())
    more = {"actor_rollout_ref.model.path": tiny_folder, "data.train_files": mini.parquet("train")}
    config, samples = composed(**more), read_samples(mini.parquet("train"))
    tokens = episode_tokens(config, samples, shape)
    assert tokens.prompt_images == 6 * (64 // shape.patch_px) ** 2
    assert tokens.keyframe == (96 // shape.patch_px) ** 2
    told = "\n".join(describe(config, samples))
    assert f"{tokens.prompt_images} of images" in told
    assert "WARNING" not in told


def test_frames_that_overflow_the_prompt_are_told(tiny_folder, mini):
    config = composed(**{"actor_rollout_ref.model.path": tiny_folder, "data.max_prompt_length": 50})
    with pytest.raises(UsageError, match=r"data\.max_prompt_length=50"):
        describe(config, read_samples(mini.parquet("train")))


def test_an_unknown_model_gets_no_estimate():
    config = composed(**{"actor_rollout_ref.model.path": "somebody/model"})
    assert describe(config, []) == [
        "no estimate: the shape of somebody/model is not known here; name a checkpoint folder"
    ]


def imitating(*choice, **more):
    return compose_sft(
        [*choice, "data.train_files=a", *(f"{key}={value}" for key, value in more.items())]
    )


def test_a_cold_start_needs_what_an_update_of_training_needs():
    choice = ["model=qwen3vl_8b", "hardware=8x80g"]
    update = estimate_memory(
        composed(*choice, "rollout=vllm"), PUBLISHED[NAMES["qwen3vl_8b"]]
    ).update
    parts = " + ".join(f"{name} {value:.1f}" for name, value in update.items())
    assert describe_learning(imitating(*choice)) == [
        f"memory of one device while it learns: {sum(update.values()):.1f} GB = {parts}"
    ]


def test_a_cold_start_follows_its_own_settings():
    base = ["model=qwen3vl_8b", "hardware=8x80g"]
    (line,) = describe_learning(imitating(*base, **{"data.max_token_len_per_gpu": 16_384}))
    assert f"logits {6 * 16_384 * 151_936 / 1e9:.1f} " in line
    (line,) = describe_learning(
        imitating(
            *base,
            **{
                "data.use_dynamic_bsz": "false",
                "data.micro_batch_size_per_gpu": 2,
                "data.max_length": 4_096,
            },
        )
    )
    assert f"logits {6 * 2 * 4_096 * 151_936 / 1e9:.1f} " in line
    _, kept = describe_learning(
        imitating(*base, **{"engine.param_offload": "true", "engine.optimizer_offload": "true"})
    )
    assert kept == f"kept in the memory of each node: {12 * 8_767_123_696 / 1e9:.1f} GB"
    *_, warning = describe_learning(imitating(*base, **{"seg.gpu_gb": 24}))
    assert warning.startswith("WARNING: ")
    assert "do not fit into 24 GB" in warning


def test_a_cold_start_of_an_unknown_model_gets_no_estimate():
    told = describe_learning(imitating("model=tiny", **{"model.path": "somebody/model"}))
    assert told == [
        "no estimate: the shape of somebody/model is not known here; name a checkpoint folder"
    ]
