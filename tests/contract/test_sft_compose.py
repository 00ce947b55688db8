"""Every model on every hardware composes to a cold start that passes our checks, and verl's SFT
trainer reads every key that we set.
"""

import importlib.util
import re
from functools import cache
from importlib import resources
from itertools import cycle, product
from pathlib import Path

import pytest
import yaml

pytest.importorskip("verl", reason="verl comes with the train extra")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seg_common.errors import UsageError
from seg_research.training.launch.config import compose_config, leaves
from seg_research.training.sft.config import (
    check_sft_against_verl,
    check_sizes,
    compose_sft,
    sft_origins,
)

VERL = Path(importlib.util.find_spec("verl").origin).parent
CONFIGS = Path(str(resources.files("seg_research.configs")))
MODELS, HARDWARE = (
    sorted(f.stem for f in (CONFIGS / group).glob("*.yaml")) for group in ("model", "hardware")
)
GIVEN = ["data.train_files=episodes.jsonl", "model.path=somewhere/model"]
OURS = {"data.image_cache_gb"}


@cache
def stock():
    with initialize_config_dir(str(VERL / "trainer" / "config"), version_base="1.3"):
        return leaves(OmegaConf.to_container(compose("sft_trainer_engine"), resolve=False))


def composed(model, hardware, *more):
    return compose_sft([f"model={model}", f"hardware={hardware}", *GIVEN, *more])


@pytest.mark.parametrize(("model", "hardware"), [*product(MODELS, HARDWARE)])
def test_every_combination_passes(model, hardware):
    config = composed(model, hardware)
    if hardware == "multinode":
        with pytest.raises(UsageError, match="one node"):
            check_sft_against_verl(config)
        return
    check_sft_against_verl(config)
    assert OmegaConf.to_container(config, resolve=True), "every reference leads somewhere"
    assert "actor_rollout_ref" not in OmegaConf.to_yaml(config)
    usual = 1e-4 if hardware == "1gpu_lora" else 1e-5
    assert config.optim.lr == (3e-3 if model == "tiny" and hardware != "1gpu_lora" else usual)


EACH_ONCE = [*zip(cycle(MODELS), HARDWARE, strict=False)]


@pytest.mark.parametrize(("model", "hardware"), EACH_ONCE)
def test_models_and_hardware_are_those_of_train(model, hardware):
    choice = [f"model={model}", f"hardware={hardware}"]
    needed = [
        "data.train_files=a",
        "data.val_files=b",
        "seg.search.text=c",
        "actor_rollout_ref.model.path=x",
    ]
    train = compose_config([*choice, *needed])
    pairs = {
        "engine.strategy": "actor_rollout_ref.actor.strategy",
        "engine.use_torch_compile": "actor_rollout_ref.actor.fsdp_config.use_torch_compile",
        "engine.mixed_precision": "actor_rollout_ref.actor.fsdp_config.mixed_precision",
        "engine.param_offload": "actor_rollout_ref.actor.fsdp_config.param_offload",
        "engine.optimizer_offload": "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
        "engine.offload_policy": "actor_rollout_ref.actor.fsdp_config.offload_policy",
        "model.use_remove_padding": "actor_rollout_ref.model.use_remove_padding",
        "model.enable_gradient_checkpointing": (
            "actor_rollout_ref.model.enable_gradient_checkpointing"
        ),
        "model.lora_rank": "actor_rollout_ref.model.lora_rank",
        "model.lora_alpha": "actor_rollout_ref.model.lora_alpha",
        "model.target_modules": "actor_rollout_ref.model.target_modules",
        "model.exclude_modules": "actor_rollout_ref.model.exclude_modules",
        "data.max_length": "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "data.micro_batch_size_per_gpu": "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
        "data.use_dynamic_bsz": "actor_rollout_ref.actor.use_dynamic_bsz",
        "checkpoint.save_contents": "actor_rollout_ref.actor.checkpoint.save_contents",
        "trainer.n_gpus_per_node": "trainer.n_gpus_per_node",
        "trainer.device": "trainer.device",
        "seg.episode.view": "seg.episode.view",
        "seg.episode.brief_prompt": "seg.episode.brief_prompt",
    }
    config = compose_sft([*choice, "data.train_files=a", "model.path=x"])
    assert {key: OmegaConf.select(config, key) for key in pairs} == {
        key: OmegaConf.select(train, there) for key, there in pairs.items()
    }


def names_in_verl() -> frozenset[str]:
    texts = (path.read_text(encoding="utf-8") for path in VERL.rglob("*.py"))
    return frozenset(
        name
        for text in texts
        for match in re.findall(r"\.(\w+)|\b(\w+)=|[\"'](\w+)[\"']", text)
        for name in match
    )


def test_verl_reads_every_key_that_we_set():
    """Besides what `train` says, whose keys are tested with it."""
    files = [CONFIGS / "sft.yaml", *(CONFIGS / "sft").rglob("*.yaml")]
    known = set(stock()) | {
        ".".join(key.split(".")[:i]) for key in stock() for i in range(1, key.count(".") + 1)
    }
    # fields of verl's data classes that its tree does not show
    known |= {"engine.mixed_precision", "checkpoint.save_lora_only"}
    names = names_in_verl()
    for path in files:
        values = {
            key: value
            for key, value in yaml.safe_load(path.read_text()).items()
            if key not in ("defaults", "seg")
        }
        assert [key for key in leaves(values) if key not in known] == [], (
            f"verl has no such key: {path.name}"
        )
        assert [key for key in leaves(values) if key.rpartition(".")[2] not in names] == [], (
            f"nothing in verl reads it: {path.name}"
        )


def test_verl_itself_accepts_what_we_compose(monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    from verl.utils.config import omega_conf_to_dataclass

    for hardware in ("cpu", "8x80g", "1x80g"):
        config = composed("qwen3vl_4b", hardware)
        for part in ("engine", "optim", "checkpoint", "profiler"):
            assert type(omega_conf_to_dataclass(config[part])).__module__.startswith("verl.")


def test_origins_name_the_file_that_decided():
    given = [
        "model=tiny",
        "hardware=1gpu_lora",
        *GIVEN,
        "engine.reshard_after_forward=false",
        "seg.seed=3",
    ]
    origin = {key: (value, where) for key, value, where in sft_origins(compose_sft(given), given)}
    assert origin["model.lora_rank"] == ("64", "hardware/1gpu_lora.yaml")
    assert origin["engine.param_offload"] == ("True", "hardware/1gpu_lora.yaml")
    assert origin["optim.lr"] == ("0.0001", "sft/hardware/1gpu_lora.yaml")
    assert origin["data.train_batch_size"] == ("24", "sft/model/tiny.yaml")
    assert origin["data.max_length"] == ("8192", "model/tiny.yaml")
    assert origin["trainer.save_freq"] == ("after_each_epoch", "sft.yaml")
    assert origin["engine.reshard_after_forward"] == ("False", "command line")
    assert origin["model.path"] == ("somewhere/model", "command line")
    assert "engine.ulysses_sequence_parallel_size" not in origin, "verl's own values are not listed"


def test_a_models_path_may_be_given_as_for_train():
    config = compose_sft(["model=tiny", GIVEN[0], "actor_rollout_ref.model.path=outputs/tiny"])
    assert config.model.path == "outputs/tiny"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("optim.learning_rate=1", "learning_rate"),
        ("+seg.sft.min_scor=1", "nothing.*seg.sft.min_scor"),
        ("seg.guards.patience=3", "nothing in a cold start reads 'seg.guards.patience'"),
        (
            "actor_rollout_ref.rollout.n=4",
            "nothing in a cold start reads|Key 'n' is not in struct|Could not override",
        ),
        ("data.train_files=null", "please set data.train_files=…"),
        ("model=qwen9", "qwen9"),
    ],
)
def test_what_nothing_reads_is_refused(more, message):
    with pytest.raises(UsageError, match=message) as caught:
        compose_sft(["model=tiny", *GIVEN, more])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("data.train_batch_size=20", "micro_batch_size_per_gpu=8 does not divide"),
        ("data.pad_mode=right", "pad_mode"),
        ("trainer.save_freq=0", "save_freq=0: expected a number of steps"),
        ("trainer.test_freq=5", "needs data.val_files"),
        ("checkpoint.save_contents=[model]", "hf_model"),
        ("engine.strategy=fsdp", "fsdp2"),
        ("trainer.resume_mode=disable", "resume_mode"),
        ("seg.sft.min_score=high", "seg.sft.min_score=high: expected a number"),
        ("seg.sft.answered_only=1", "answered_only=1: expected true or false"),
        ("seg.sft.image_cache_gb=-1", "expected 0 or more"),
        ("seg.episode.recipe=nobody", "unknown recipe"),
    ],
)
def test_contradictions_are_refused(more, message):
    with pytest.raises(UsageError, match=message):
        check_sft_against_verl(composed("tiny", "cpu", more))


def test_packed_batches_must_hold_the_longest_episode():
    with pytest.raises(UsageError, match="max_token_len_per_gpu=4096 is less than"):
        check_sft_against_verl(composed("qwen3vl_8b", "8x80g", "data.max_token_len_per_gpu=4096"))
    with pytest.raises(UsageError, match="does not divide among 8"):
        check_sft_against_verl(composed("qwen3vl_8b", "8x80g", "data.train_batch_size=12"))


def test_sizes():
    config = composed("tiny", "cpu", "trainer.total_epochs=2")
    assert check_sizes(config, 24 * 3 + 5, None) == 6
    with pytest.raises(UsageError, match="only 23 episodes"):
        check_sizes(config, 23, None)
    with pytest.raises(UsageError, match="val_files: 5 episodes do not fill"):
        check_sizes(config, 48, 5)
    config.trainer.total_training_steps = 7
    with pytest.raises(UsageError, match=r"set trainer\.total_epochs=3"):
        check_sizes(config, 24 * 3, None)
