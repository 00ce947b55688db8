"""A deadline on handing new weights to the rollout engine: whatever goes wrong on the engine's
side, the run ends and says so.

verl's sender waits for the engine's answer without end. An engine that fails to load a tensor never
answers; its error is one of many lines in the log. This holds for every engine, on GPUs and CPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

from omegaconf import DictConfig

from seg_research.training.launch.run_folder import TRAINER_LOG
from seg_research.training.launch.trainer_process import last_error
from seg_research.training.run_contract import stop_run

logger = logging.getLogger(__name__)


def give_up(config: DictConfig, global_steps: int | None) -> None:
    """Have the launcher stop the run; tell how long was waited, and the last error in the log,
    which is mostly the engine's.
    """
    log = Path(config.seg.run_dir) / TRAINER_LOG
    cause = last_error(log) if log.is_file() else "unknown"
    reason = (
        f"the weights of step {global_steps} did not reach the rollout engine within "
        "seg.rollout.sync_timeout_s="
        f"{config.seg.rollout.sync_timeout_s:g} s; last error in the log: {cause}"
    )
    logger.error("%s", stop_run(config, reason))


def with_deadline(
    config: DictConfig,
    hand_over: Callable[..., Any],
    manager: Any,
    global_steps: int | None = None,
) -> Any:
    """Hand over weights; where that does not end in time, stop the run."""
    watch = Timer(config.seg.rollout.sync_timeout_s, give_up, (config, global_steps))
    watch.daemon = True
    watch.start()
    try:
        return hand_over(manager, global_steps)
    finally:
        watch.cancel()
