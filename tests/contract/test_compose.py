"""Every combination of shipped choices composes and passes our checks, and verl reads every key
that we set.
"""

import ast
import importlib.util
import re
from functools import cache
from importlib import resources
from itertools import chain, cycle, product
from pathlib import Path

import pytest
import yaml

from seg_research.training.launch.recipe_node import generate

pytest.importorskip("verl", reason="verl comes with the train extra")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seg_research.training.launch.checks import check_against_verl
from seg_research.training.launch.config import compose_config, leaves

VERL = Path(importlib.util.find_spec("verl").origin).parent
CONFIGS = Path(str(resources.files("seg_research.configs")))
GROUPS = {
    folder.name: sorted(f.stem for f in folder.glob("*.yaml"))
    for folder in CONFIGS.iterdir()
    if list(folder.glob("*.yaml"))
}
REQUIRED = {
    "data.train_files": "train.parquet",
    "data.val_files": "val.parquet",
    "seg.search.text": "text.jsonl",
    "seg.search.url": "http://a:1",
}

FREE = ("search", "logger")
"""Groups that share no key with the others: their choices are taken in turn."""
TURNS = {name: cycle(GROUPS[name]) for name in FREE}
COMBINATIONS = [
    dict(zip((n for n in GROUPS if n not in FREE), chosen, strict=True))
    | {name: next(turn) for name, turn in TURNS.items()}
    for chosen in product(*(GROUPS[n] for n in GROUPS if n not in FREE))
]

OPEN = {
    "actor_rollout_ref.model.override_config",  # the model's own configuration
    "actor_rollout_ref.rollout.engine_kwargs.vllm",  # arguments of vLLM
    "trainer.v1.sampler.sampler_kwargs",  # arguments of our sampler
    "ray_kwargs.ray_init",  # arguments of ray.init
    "transfer_queue",  # the TransferQueue package's own configuration
}
"""Places where verl hands on whatever stands there."""
IGNORED = {"algorithm.filter_groups.max_num_gen_batches"}
"""Keys that verl 0.9.1 has and does not obey."""


@pytest.fixture(scope="module")
def stock():
    """verl's own tree, flat."""
    with initialize_config_dir(str(VERL / "trainer" / "config"), version_base="1.3"):
        return leaves(OmegaConf.to_container(compose("ppo_trainer"), resolve=False))


def overrides(choice, **more):
    return [f"{key}={value}" for key, value in (REQUIRED | choice | more).items()]


def test_the_groups_are_the_ones_the_help_names():
    assert set(GROUPS) == {
        "recipe",
        "model",
        "hardware",
        "rollout",
        "algorithm",
        "search",
        "logger",
    }


def test_the_free_groups_share_no_key_with_the_others():
    keys = {
        name: {
            k
            for f in (CONFIGS / name).glob("*.yaml")
            for k in leaves(yaml.safe_load(f.read_text()))
        }
        for name in GROUPS
    }
    for free in FREE:
        assert not keys[free] & set().union(*(keys[name] for name in GROUPS if name != free))


@pytest.fixture(scope="module")
def base():
    """What stands below our groups: verl's tree, seg.yaml and what train.yaml says itself, as plain
    values.

    Hydra takes a second for a configuration, most of it to read verl's files again; the files of
    the groups only lie on top.
    """
    with initialize_config_dir(str(VERL / "trainer" / "config"), version_base="1.3"):
        whole = OmegaConf.to_container(compose("ppo_trainer"), resolve=False)
    tree = {key: whole[key] for key in READ}
    ours = yaml.safe_load((CONFIGS / "seg.yaml").read_text())
    tree["seg"] = laid_over(generate([]), ours) | {
        "run_dir": "/run",
        "agent_loops": "/run/agent_loops.yaml",
    }
    return tree


READ = (
    "actor_rollout_ref",
    "algorithm",
    "critic",
    "data",
    "ray_kwargs",
    "reward",
    "trainer",
    "transfer_queue",
)
"""The parts of verl's tree that our files touch; `laid_over` would fail to notice others, the
comparison with Hydra would not.
"""


def laid_over(under: object, over: object) -> object:
    """Merge nested dicts; the second one wins."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {
        key: laid_over(under[key], value) if key in under else value for key, value in over.items()
    }


ORDER = [
    name
    for entry in yaml.safe_load((CONFIGS / "train.yaml").read_text())["defaults"]
    if isinstance(entry, dict)
    for name in entry
]


def merged(base, choice):
    """Lay the files of a choice over the base, in the order of train.yaml."""
    tree = base
    for file in [*(f"{group}/{choice[group]}.yaml" for group in ORDER), "train.yaml"]:
        tree = laid_over(
            tree,
            {
                k: v
                for k, v in yaml.load((CONFIGS / file).read_text(), yaml.CSafeLoader).items()
                if k != "defaults"
            },
        )
    return OmegaConf.create(tree)


def flat(config):
    return {
        key: float(value) if re.fullmatch(r"\d+e-\d+", str(value)) else value
        for key, value in leaves(OmegaConf.to_container(config)).items()
    }


@pytest.mark.parametrize("choice", COMBINATIONS, ids=lambda choice: "-".join(choice.values()))
def test_every_combination_passes(choice, base):
    config = merged(base, choice)
    check_against_verl(config)
    assert config.actor_rollout_ref.rollout.dtype == (
        "float32" if choice["hardware"] == "cpu" else "bfloat16"
    )
    assert config.actor_rollout_ref.rollout.name == choice["rollout"]
    assert config.trainer.device == ("cpu" if choice["hardware"] == "cpu" else "cuda")
    assert "file" in config.trainer.logger
    assert config.algorithm.filter_groups.enable == (choice["algorithm"] == "dapo")


def own_model(choice):
    return ["actor_rollout_ref.model.path=outputs/tiny"] if choice["model"] == "tiny" else []


EACH_ONCE = [
    {name: options[i % len(options)] for name, options in GROUPS.items()}
    for i in range(max(map(len, GROUPS.values())))
]


@pytest.mark.parametrize("choice", EACH_ONCE, ids=lambda choice: "-".join(choice.values()))
def test_hydra_composes_each_choice_to_the_same(choice, base):
    composed = compose_config(
        [
            *(f"{key}={value}" for key, value in (REQUIRED | choice).items()),
            "seg.run_dir=/run",
            *own_model(choice),
        ]
    )
    there, here = flat(OmegaConf.masked_copy(composed, [*READ, "seg"])), flat(merged(base, choice))
    given = {*REQUIRED, "seg.agent_loops", "actor_rollout_ref.model.path"}
    assert {k: v for k, v in there.items() if k not in given} == {
        k: v for k, v in here.items() if k not in given
    }
    assert OmegaConf.to_container(composed, resolve=True), "every reference leads somewhere"


PUBLISHED = {
    "qwen3vl_4b": {
        "data.max_response_length": 8192,
        "trainer.total_training_steps": 100,
        "trainer.save_freq": 10,
    },
    "qwen3vl_8b": {
        "data.max_response_length": 6144,
        "trainer.total_training_steps": 160,
        "trainer.save_freq": 20,
    },
}


@pytest.mark.parametrize(("model", "algorithm"), [*product(PUBLISHED, ("grpo", "dapo"))])
def test_the_published_numbers_are_the_defaults(model, algorithm):
    """Specs seg_research §6, row by row."""
    config = compose_config(
        overrides({"model": model, "hardware": "8x80g", "rollout": "vllm", "algorithm": algorithm})
    )
    wanted = PUBLISHED[model] | {
        "data.train_batch_size": 16,
        "data.max_prompt_length": 2048,
        "actor_rollout_ref.rollout.n": 8,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 8,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 10240
        if model == "qwen3vl_4b"
        else 8192,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.optim.lr_warmup_steps": 10,
        "actor_rollout_ref.actor.optim.weight_decay": 0.01,
        "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
        "actor_rollout_ref.actor.grad_clip": 1.0,
        "actor_rollout_ref.actor.clip_ratio_low": 0.2,
        "actor_rollout_ref.actor.clip_ratio_high": 0.2 if algorithm == "grpo" else 0.3,
        "actor_rollout_ref.actor.clip_ratio_c": 3.0,
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "actor_rollout_ref.actor.entropy_coeff": 0,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.rollout.top_p": 1.0,
        "actor_rollout_ref.rollout.top_k": -1,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1 if model == "qwen3vl_4b" else 2,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.4,
        "actor_rollout_ref.rollout.max_num_seqs": 512,
        "actor_rollout_ref.rollout.max_model_len": 10240 if model == "qwen3vl_4b" else 8192,
        "actor_rollout_ref.rollout.agent.num_workers": 8,
        "algorithm.use_kl_in_reward": False,
        "seg.episode.limits.max_tool_calls": 6,
        "seg.episode.limits.max_turn_tokens": 4096,
    }
    assert {key: OmegaConf.select(config, key) for key in wanted} == wanted


FILES = sorted(
    (
        p
        for p in CONFIGS.rglob("*.yaml")
        if p.name not in {"seg.yaml", "sft.yaml"} and p.parent.parent.name != "sft"
    ),
    key=str,
)


def settings_of(path: Path) -> dict[str, object]:
    """Give what a file of ours sets in verl's tree."""
    values = yaml.safe_load(path.read_text())
    return (
        leaves({key: value for key, value in values.items() if key not in {"defaults", "seg"}})
        if set(values) - {"seg"}
        else {}
    )


@cache
def names_in_verl() -> frozenset[str]:
    """Every attribute, argument and string in verl's code; the fields of its configuration classes
    are none of these.
    """
    texts = (path.read_text(encoding="utf-8") for path in VERL.rglob("*.py"))
    mentioned = (re.findall(r"\.(\w+)|\b(\w+)=|[\"']([\w.]+)[\"']", text) for text in texts)
    return frozenset(
        part
        for match in chain.from_iterable(mentioned)
        for name in match
        for part in name.split(".")
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_verl_reads_every_key_that_we_set(path, stock):
    """verl does not complain of keys that it does not know, and its own tree has some that nothing
    obeys.
    """
    known = set(stock) | {
        ".".join(key.split(".")[:i]) for key in stock for i in range(1, key.count(".") + 1)
    }
    handed_on = tuple(f"{place}." for place in OPEN)
    fields = fields_of_the_engine()
    keys = [key for key in settings_of(path) if not key.startswith(handed_on)]
    assert [k for k in keys if k not in known and k not in fields] == [], "verl has no such key"
    assert [k for k in keys if k.rpartition(".")[2] not in names_in_verl() or k in IGNORED] == [], (
        "nothing in verl reads it"
    )


def fields_of_the_engine() -> set[str]:
    """Keys that verl's data classes of engine and checkpoint have and its tree does not show."""
    names, checkpoint = fields_of("engine.py"), fields_of("../../trainer/config/config.py")
    assert "mixed_precision" in names
    parts = ("param_dtype", "reduce_dtype", "buffer_dtype")
    shown = {
        f"actor_rollout_ref.{role}.fsdp_config.{name}.{part}"
        for role in ("actor", "ref")
        for name in names
        for part in parts
    }
    return shown | {f"actor_rollout_ref.actor.checkpoint.{name}" for name in checkpoint}


def fields_of(path: str) -> set[str]:
    """Names of the fields of the data classes in a file of verl."""
    tree = ast.parse((VERL / "workers" / "config" / path).read_text())
    return {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@pytest.mark.parametrize("choice", EACH_ONCE, ids=lambda choice: "-".join(choice.values()))
def test_verl_itself_accepts_each_choice(choice, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = compose_config(
        [*(f"{key}={value}" for key, value in (REQUIRED | choice).items()), *own_model(choice)]
    )
    validate_config(config, use_reference_policy=False, use_critic=False)
    for part in ("actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm"):
        assert type(omega_conf_to_dataclass(OmegaConf.select(config, part))).__module__.startswith(
            "verl."
        )


def test_what_is_handed_to_ray_is_an_argument_of_it():
    import inspect

    import ray

    given = {
        k.split(".")[2]
        for path in FILES
        for k in settings_of(path)
        if k.startswith("ray_kwargs.ray_init.")
    }
    assert given <= set(inspect.signature(ray.init).parameters)
    assert {"address", "num_gpus"} <= given
