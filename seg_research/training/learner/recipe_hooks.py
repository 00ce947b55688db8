"""Carry out what a recipe wants changed in the trainer (`recipes.hooks.TrainerHooks`).

The launcher knows the recipe and hands its hooks to verl's processes through Ray's runtime
environment: workers of verl are given their part of the configuration only. `training.patches`
calls what is here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seg_common.errors import InvariantError, UsageError
from seg_research.recipes.hooks import TrainerHooks

VARIABLE = "SEG_RESEARCH_HOOKS"
_NAMES = ("model", "loss", "after_rollout")


def put_into_config(config: DictConfig, hooks: TrainerHooks) -> None:
    """Have Ray give the hooks to every process of the run; does nothing where there are none.

    Raises:
        UsageError: Python does not find a module, or a setting and a hook exclude each other.
    """
    paths = {name: getattr(hooks, name) for name in _NAMES if getattr(hooks, name) is not None}
    if not paths:
        return
    for name, path in paths.items():
        _check_module(name, path)
    if hooks.after_rollout is not None:
        _check_after_rollout(config)
    key = f"ray_kwargs.ray_init.runtime_env.env_vars.{VARIABLE}"
    OmegaConf.update(config, key, json.dumps(paths), force_add=True)


def hook(name: str) -> Any:
    """Return one hook of this run's recipe; None where it has none.

    Raises:
        UsageError: its module has nothing of that name.
    """
    path = json.loads(os.environ.get(VARIABLE, "{}")).get(name)
    if path is None:
        return None
    module, _, attribute = path.partition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not callable(found):
        raise UsageError(f"trainer hook '{name}': {module} has no function {attribute}")
    return found


def is_set(name: str) -> bool:
    """Tell whether this run's recipe has a hook, without importing it."""
    return name in json.loads(os.environ.get(VARIABLE, "{}"))


def extend_model(engine: Any, module: Any) -> None:
    """Call the model hook, and note which weights it has added."""
    before = set(module.state_dict())
    hook("model")(module, engine)
    engine._seg_added = frozenset(set(module.state_dict()) - before)


def without_added(
    engine: Any, named_weights: Iterator[tuple[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """Leave out the weights that the model hook has added; the rollout engine refuses them."""
    added = getattr(engine, "_seg_added", frozenset())
    return ((name, weight) for name, weight in named_weights if name not in added)


def set_loss(worker: Any) -> None:
    """Put the loss hook in the place of verl's loss, with the configuration that that one had."""
    actor = getattr(worker, "actor", None)
    if actor is not None:
        actor.set_loss_fn(partial(hook("loss"), config=worker.loss_fn.keywords["config"]))


def after_rollout(trainer: Any, batch: Any, metrics: dict[str, Any]) -> None:
    """Call the hook on the trajectories of a step, and store their rewards as it leaves them: the
    breakdown with the trajectory, its total on the last token.
    """
    import torch
    import transfer_queue as tq
    from verl.utils.tensordict_utils import get_tensordict

    from seg_research.training.trajectory import fetch_extra_fields, from_extra_fields

    extras = fetch_extra_fields(batch.keys, batch.partition_id)
    given = [
        None if tag.get("is_padding") else from_extra_fields(extra)
        for extra, tag in zip(extras, batch.tags, strict=True)
    ]
    found = list(hook("after_rollout")(trainer, batch, given))
    if [one is None for one in found] != [one is None for one in given]:
        raise InvariantError("trainer hook 'after_rollout': expected one trajectory for each")
    fields: Any = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"]
    )
    scores = [row.clone() for row in fields["rm_scores"].unbind()]
    for row, extra, trajectory in zip(scores, extras, found, strict=True):
        if trajectory is not None:
            row[-1] = trajectory.reward.total
            extra.update(trajectory.to_extra_fields())
    changed = {
        "rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged),
        "extra_fields": extras,
    }
    tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=get_tensordict(changed)
    )


def _check_module(name: str, path: str) -> None:
    module, colon, _ = path.partition(":")
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not (colon and found):
        raise UsageError(
            f"trainer hook {name}='{path}': expected package.module:function of a module that "
            "Python finds; install it, or name its folder in PYTHONPATH"
        )


def _check_after_rollout(config: DictConfig) -> None:
    correction = config.algorithm.get("rollout_correction", None)
    if correction and correction.get("bypass_mode", False):
        raise UsageError(
            f"recipe {config.seg.episode.recipe} looks at trajectories when the policy's "
            "log-probabilities are computed, which algorithm.rollout_correction.bypass_mode leaves "
            "out; set it to false"
        )
    if config.algorithm.filter_groups.enable:
        raise UsageError(
            f"recipe {config.seg.episode.recipe} completes its rewards after the rollout, and "
            "dynamic sampling chooses groups before; set algorithm.filter_groups.enable=false"
        )
