"""What a recipe may change in the trainer. Import paths (`package.module:name`) and not functions,
so that a recipe imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from seg_research.episode.transcript import Transcript


@dataclass(frozen=True, slots=True)
class TrainerHooks:
    """Hooks of a recipe, each None where the trainer is to stay as it is.

    Attributes:
        model: called with the actor's model, loaded and sharded, and verl's engine, before the
            optimizer is made: `(module, engine) -> None`. It may add modules (sharded as the rest:
            `fully_shard(..., mesh=engine.device_mesh)`) and register forward hooks. What it adds
            is trained, and saved with checkpoints; it is not sent to the rollout engine.
        loss: the actor's loss, instead of verl's `ppo_loss` and with its parameters:
            `(config, model_output, data, dp_group=None) -> (loss, metrics)`.
        after_rollout: called in the trainer with the finished trajectories of a step, once the
            policy's log-probabilities are known and before advantages are made:
            `(trainer, batch, trajectories) -> trajectories`. It may measure something with the
            current weights, and returns the trajectories with other rewards and measures; None
            among them is padding.
        evidence: called in the rollout process with a finished transcript; what it returns, plain
            data, travels with the trajectory (`FinishedTrajectory.evidence`) to `after_rollout`.
    """

    model: str | None = None
    loss: str | None = None
    after_rollout: str | None = None
    evidence: Callable[[Transcript], Mapping[str, Any]] | None = None
