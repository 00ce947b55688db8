"""Run stock `verl.trainer.main_ppo` as a child process: show its progress, stop what was started,
explain a failure in one line.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from seg_common.errors import InfraError, UsageError
from seg_common.files import write_atomic
from seg_research.recipes.registry import build_recipe
from seg_research.training.launch import run_folder
from seg_research.training.launch.config import episode_settings
from seg_research.training.launch.failure_report import save_worst
from seg_research.training.launch.run_folder import TRAINER_LOG
from seg_research.training.launch.trainer_process import (
    POLL_S,
    Progress,
    last_error,
    ray_did_not_start,
    report_steps,
    start_trainer,
    stop_trainer,
    trainer_environment,
)
from seg_research.training.learner.recipe_hooks import put_into_config
from seg_research.training.run_contract import AGENT_NAME, STOP_FILE

logger = logging.getLogger(__name__)

_MAX_STARTS = 3
"""How often a trainer is started whose Ray cluster does not come up."""

PLUGIN_MODULE = "seg_research.training.plugin"


def launch(config: DictConfig, search_url: str, progress: Progress) -> Path:
    """Train to the end and return the folder of the final policy; a run that was interrupted goes
    on from its last checkpoint.

    `search_url` is the address of a search server that runs; `progress` is told of each finished
    step.

    Raises:
        UsageError: the run folder holds another run or is in use, or a guard stopped this run.
        InfraError: the trainer failed.
    """
    run_dir = Path(config.seg.run_dir)
    with run_folder.exclusive(run_dir) as lock:
        run_folder.claim(run_dir, config)
        run_folder.tidy(run_dir)
        write_atomic(
            run_dir / "agent_loops.yaml",
            f"- name: {AGENT_NAME}\n  _target_: "
            "seg_research.training.rollout.agent_loop.SegAgentLoop\n",
        )
        resolved = config.copy()
        resolved.seg.search.url = search_url
        put_into_config(resolved, build_recipe(episode_settings(config)).hooks())
        write_atomic(run_dir / "resolved.yaml", OmegaConf.to_yaml(resolved))
        if run_folder.last_step(run_dir) < (config.trainer.total_training_steps or sys.maxsize):
            _supervise(config, run_dir, progress, lock)
        return _export(config, run_dir)


def finished_policy(config: DictConfig) -> Path | None:
    """Return the policy of this run if it was trained for as many steps as are wanted now.

    Raises:
        UsageError: the run folder holds another run.
    """
    run_dir = Path(config.seg.run_dir)
    run_folder.claim(run_dir, config)
    done = run_folder.policy_record(run_dir)
    return (
        run_dir / "policy"
        if done and done["step"] >= (config.trainer.total_training_steps or 0)
        else None
    )


def ppo_environment(config: DictConfig) -> dict[str, str]:
    """Return the environment of the trainer and of what it starts."""
    added = {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1"}
    # Servers look up lent images while Ray hands them their arguments, where nothing can be
    # awaited.
    added["RAY_WARN_BLOCKING_GET_INSIDE_ASYNC"] = "0"
    if config.trainer.device == "cpu":
        added["TQ_NUM_THREADS"] = "1"
    return {
        **trainer_environment(config, config.actor_rollout_ref.model.path, PLUGIN_MODULE),
        **added,
    }


def _supervise(config: DictConfig, run_dir: Path, progress: Progress, lock: int) -> None:
    log = run_dir / TRAINER_LOG
    for start in range(1, _MAX_STARTS + 1):
        begin = log.stat().st_size if log.is_file() else 0
        child = start_trainer("verl.trainer.main_ppo", run_dir, ppo_environment(config), lock)
        _watch(child, run_dir, progress)
        if (run_dir / STOP_FILE).is_file():
            raise UsageError(_stop_message(run_dir))
        if child.returncode == 0:
            return
        if start == _MAX_STARTS or not ray_did_not_start(log, begin):
            code, reason = child.returncode, last_error(log, begin)
            raise InfraError(f"the trainer ended with exit code {code}: {reason}\n  log: {log}")
        logger.warning(
            "Ray did not start in the 30 s it allows itself, as happens on a busy machine; "
            "the trainer is started again (%d of %d)",
            start + 1,
            _MAX_STARTS,
        )


def _watch(child: subprocess.Popen[bytes], run_dir: Path, progress: Progress) -> None:
    """Report steps until the trainer has ended, or a guard asks to stop it."""
    try:
        seen = 0
        while child.poll() is None and not (run_dir / STOP_FILE).is_file():
            seen = report_steps(run_dir, seen, progress)
            time.sleep(POLL_S)
        report_steps(run_dir, seen, progress)
    finally:
        stop_trainer(child)


def _stop_message(run_dir: Path) -> str:
    """Say why the run was stopped and where to look; the trainer has ended."""
    lines = [f"the run was stopped: {(run_dir / STOP_FILE).read_text(encoding='utf-8').strip()}"]
    worst = save_worst(run_dir)
    if worst is not None:
        lines.append(
            f"  worst trajectories: {worst}; to see them: seg-research report --run {run_dir}"
        )
    return "\n".join([*lines, f"  log: {run_dir / TRAINER_LOG}"])


def _export(config: DictConfig, run_dir: Path) -> Path:
    step, model = run_folder.last_step(run_dir), config.actor_rollout_ref.model
    if not step:
        raise InfraError(f"the trainer ended without a checkpoint\n  log: {run_dir / TRAINER_LOG}")
    return run_folder.export_policy(
        run_dir,
        run_dir / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface",
        model.path,
        lora=model.lora_rank > 0,
        settings=episode_settings(config),
        record={"step": step},
    )
