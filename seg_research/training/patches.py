"""Every patch of verl and of vLLM, each with its reason and with what tells that it can go.

`@patch` puts a function around another one: it is called with the original and then with the
original's arguments. `apply_patches` installs those of the current process; `seg-research doctor`
lists them. Importing this module imports neither verl nor torch, and neither does a listing: the
functions import what they need, and each of them must be an entry of extension_points.toml
(log of patches: verl/UPGRADING.md).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any


class Process(StrEnum):
    """Which of our entry points loads a process."""

    REINFORCEMENT = "reinforcement learning"
    SUPERVISED = "supervised training"
    VLLM_WORKER = "vLLM's worker on a CPU"


@dataclass(frozen=True, slots=True)
class Patch:
    """One function of another library that is wrapped or replaced.

    Attributes:
        target: `package.module:qualified.name`.
        reason: what goes wrong without it.
        removed_when: what tells that it can go.
        function: called with the original and its arguments.
        applies: tells whether this process needs it.
    """

    target: str
    process: Process
    reason: str
    removed_when: str
    function: Callable[..., Any]
    applies: Callable[[], bool]

    def apply(self) -> None:
        """Install it; does nothing the second time."""
        module_name, _, qualified = self.target.partition(":")
        *path, name = qualified.split(".")
        owner: Any = importlib.import_module(module_name)
        for part in path:
            owner = getattr(owner, part)
        wrap(owner, name, self.function)


PATCHES: list[Patch] = []
"""In the order in which they are applied."""


def on_cpu() -> bool:
    """Tell whether this process trains on our CPU platform."""
    return os.environ.get("VERL_PLATFORM") == "cpu"


def has_hook(name: str) -> bool:
    """Tell whether the run's recipe wants something changed in the trainer."""
    from seg_research.training.learner.recipe_hooks import is_set

    return is_set(name)


def patch(
    target: str,
    *,
    process: Process = Process.REINFORCEMENT,
    reason: str,
    removed_when: str,
    applies: Callable[[], bool] = lambda: True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function into `PATCHES`."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        PATCHES.append(Patch(target, process, reason, removed_when, function, applies))
        return function

    return enter


def apply_patches(process: Process) -> None:
    """Install what this process needs. verl's modules ask for the device while they are imported,
    so that the platform has to be known before.
    """
    for entry in PATCHES:
        if entry.process is process and entry.applies():
            entry.apply()


def wrap(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Replace an attribute by a call of `function` with the original and its arguments, once."""
    original = getattr(owner, name)
    if getattr(original, "_seg_patched", False):
        return

    @functools.wraps(original)
    def call(*given: Any, **named: Any) -> Any:
        return function(original, *given, **named)

    call._seg_patched = True  # type: ignore[attr-defined]
    setattr(owner, name, call)


@patch(
    "verl.utils.distributed:initialize_global_process_group_ray",
    reason="asks for cpu:gloo,cpu:gloo on the CPU platform, which torch refuses; before the engine "
    "workers import it",
    removed_when="test_verl_still_names_the_cpu_twice fails",
    applies=on_cpu,
)
def join_process_group_of_workers(
    original: Callable[..., Any],
    timeout_second: float | timedelta | None = None,
    backend: str | None = None,
) -> Any:
    """Give the process group one backend for the CPU."""
    return original(timeout_second, backend or "cpu:gloo")


@patch(
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._next_train_batch",
    reason="names prompts at random, and the name decides what is sampled for a prompt: a resumed "
    "run would not go on as the uninterrupted one",
    removed_when="test_verl_still_names_prompts_at_random fails",
)
def number_prompts(
    original: Callable[..., Any], trainer: Any, num_prompts: int | None = None
) -> Any:
    """Name the prompts of a training step by their number, `<step>-<number>`."""
    from verl.utils import tensordict_utils

    batch = original(trainer, num_prompts)
    step, taken = getattr(trainer, "_seg_numbered", (None, 0))
    taken = taken if step == trainer.global_steps else 0
    names = [f"{trainer.global_steps}-{taken + i}" for i in range(len(batch))]
    tensordict_utils.assign_non_tensor_stack(batch, "uid", names)
    trainer._seg_numbered = (trainer.global_steps, taken + len(batch))
    return batch


@patch(
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage",
    reason="hands estimators the sum of the rewards only; the one place that knows the keys of the "
    "trajectories and the step's metrics",
    removed_when="test_verl_still_hides_the_terms_from_estimators fails",
)
def compute_advantage(
    original: Callable[..., Any], trainer: Any, batch: Any, metrics: dict[str, Any]
) -> Any:
    """Log what the rollouts earned by term, and have our estimator make advantages of it."""
    from seg_research.training.learner import advantage

    step = advantage.fetch_step(trainer.config, batch)
    metrics.update(advantage.step_metrics(step, trainer.config.actor_rollout_ref.rollout.n))
    advantage.give_to_verl(step)
    return original(trainer, batch, metrics)


@patch(
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_old_log_prob",
    reason="no hook between the parts of a step: here the log-probabilities of rollout and trainer "
    "first stand side by side",
    removed_when="the trainer has such hooks",
)
def compute_old_log_prob(
    original: Callable[..., Any], trainer: Any, batch: Any, metrics: dict[str, Any]
) -> Any:
    """Measure how far rollout and trainer are apart; have the recipe look at the trajectories."""
    from seg_research.training.learner import recipe_hooks, step_checks

    result = original(trainer, batch, metrics=metrics)
    step_checks.measure_gap(trainer, result, metrics)
    if recipe_hooks.is_set("after_rollout"):
        recipe_hooks.after_rollout(trainer, result, metrics)
    return result


@patch(
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._update_actor",
    reason="no hook between the parts of a step: the guards judge one before its checkpoint is "
    "written",
    removed_when="the trainer has such hooks",
)
def update_actor(
    original: Callable[..., Any], trainer: Any, batch: Any, metrics: dict[str, Any]
) -> Any:
    """Stop the run where a guard says so."""
    from seg_research.training.learner import step_checks

    result = original(trainer, batch, metrics=metrics)
    step_checks.judge_step(trainer, metrics)
    return result


@patch(
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer.init",
    reason="knows the deadline, and runs before the first hand-over of weights, all of which pass "
    "CheckpointEngineManager.update_weights; that one waits without end",
    removed_when="verl's weight sync has a timeout of its own",
)
def init(original: Callable[..., Any], trainer: Any) -> Any:
    """Put a deadline on every hand-over of weights to the rollout engine."""
    from verl.checkpoint_engine.base import CheckpointEngineManager

    from seg_research.training.learner.weight_sync import with_deadline

    limited = functools.partial(with_deadline, trainer.config)
    wrap(CheckpointEngineManager, "update_weights", limited)
    return original(trainer)


@patch(
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead._build_optimizer",
    reason="no hook for a model that a recipe extends: this is the one place that sees it sharded, "
    "without an optimizer yet, and never a reference model",
    removed_when="verl's engine has such a hook",
    applies=lambda: has_hook("model"),
)
def build_optimizer(original: Callable[..., Any], engine: Any, module: Any) -> Any:
    """Let the recipe extend the actor's model."""
    from seg_research.training.learner import recipe_hooks

    recipe_hooks.extend_model(engine, module)
    return original(engine, module)


@patch(
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.get_per_tensor_param",
    reason="sends every weight to the rollout engine, which refuses those that a recipe has added",
    removed_when="verl's engine can leave weights out",
    applies=lambda: has_hook("model"),
)
def get_per_tensor_param(
    original: Callable[..., Any], engine: Any, *given: Any, **named: Any
) -> Any:
    """Send the weights that the rollout engine knows."""
    from seg_research.training.learner import recipe_hooks

    weights, peft_config = original(engine, *given, **named)
    return recipe_hooks.without_added(engine, weights), peft_config


@patch(
    "verl.workers.engine_workers:ActorRolloutRefWorker.init_model",
    reason="sets verl's own loss, and knows the configuration that a loss needs",
    removed_when="the actor's loss can be configured by import path",
    applies=lambda: has_hook("loss"),
)
def init_model(original: Callable[..., Any], worker: Any) -> Any:
    """Set the recipe's loss."""
    from seg_research.training.learner import recipe_hooks

    result = original(worker)
    recipe_hooks.set_loss(worker)
    return result


@patch(
    "verl.utils.distributed:initialize_global_process_group",
    process=Process.SUPERVISED,
    reason="asks for cpu:gloo,cpu:gloo on the CPU platform, which torch refuses",
    removed_when="test_verl_still_names_the_cpu_twice fails",
    applies=on_cpu,
)
def join_process_group(
    original: Callable[..., Any], timeout_second: int = 36_000
) -> tuple[int, int, int]:
    """Join the process group over the CPU alone."""
    import torch

    torch.distributed.init_process_group("cpu:gloo", timeout=timedelta(seconds=timeout_second))
    return (
        int(os.environ["LOCAL_RANK"]),
        torch.distributed.get_rank(),
        torch.distributed.get_world_size(),
    )


@patch(
    "verl.utils.torch_functional:logprobs_from_logits_v2",
    process=Process.SUPERVISED,
    reason="loops over tokens, which costs a CPU a seventh of a step (measured)",
    removed_when="it no longer does",
    applies=on_cpu,
)
def logprobs_from_logits(original: Callable[..., Any], logits: Any, labels: Any) -> Any:
    """Return the log-probability of each label in one pass."""
    import torch.nn.functional as F

    losses = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="none"
    )
    return -losses.view(labels.shape)


@patch(
    "verl.utils.checkpoint:CheckpointHandler._load_dataloader_state",
    process=Process.SUPERVISED,
    reason="restores the data loader to the end of an epoch: the next one is empty, and the run "
    "ends that much too early without a word",
    removed_when="tests/smoke/test_sft_lora_smoke.py, which resumes there, passes without it",
)
def load_dataloader_state(original: Callable[..., Any], handler: Any, checkpoint_path: str) -> None:
    """Let a run that was stopped at the end of an epoch begin the next one."""
    if handler.resume_global_step % len(handler.train_dataloader):
        original(handler, checkpoint_path)


@patch(
    "vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm",
    process=Process.VLLM_WORKER,
    reason="repacks the weights of linear layers once, at loading, and leaves empty tensors in "
    "their place: later weights fail to load, or are loaded and never used",
    removed_when="test_a_sync_that_fails_ends_the_run_with_a_reason fails as the sync succeeds",
)
def keep_weights_of_linear_layers(
    original: Callable[..., Any], layer: Any, remove_weight: bool
) -> None:
    """Multiply with the layer's weight as it is at the time of the call."""
    import torch

    layer.cpu_linear = torch.nn.functional.linear
