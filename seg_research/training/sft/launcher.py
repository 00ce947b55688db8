"""Run verl's SFT trainer, one child process a device: show its progress, stop what was started,
explain a failure in one line.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf, open_dict

from seg_common.errors import InfraError, UsageError
from seg_common.files import write_atomic
from seg_research.training.launch import run_folder
from seg_research.training.launch.config import episode_settings
from seg_research.training.launch.run_folder import TRAINER_LOG, last_step
from seg_research.training.launch.trainer_process import (
    POLL_S,
    Progress,
    last_error,
    report_steps,
    start_trainer,
    stop_trainer,
    trainer_environment,
)
from seg_research.training.sft.config import sft_settings
from seg_research.training.sft.prepare import Encoded, as_table, write_encoded

PLUGIN_MODULE = "seg_research.training.sft.plugin"


def launch_sft(
    config: DictConfig, train: Encoded, val: Encoded | None, steps: int, progress: Progress
) -> Path:
    """Train to step `steps` and return the folder of the final policy; an interrupted run goes on
    from its last checkpoint.

    Raises:
        UsageError: the run folder holds another run or is in use.
        InfraError: the trainer failed.
    """
    run_dir = Path(config.seg.run_dir)
    with run_folder.exclusive(run_dir) as lock:
        run_folder.claim(run_dir, config)
        run_folder.tidy(run_dir)
        resolved = config.copy()
        with open_dict(resolved):
            resolved.data.train_files = str(_keep(run_dir / "train.parquet", train))
            resolved.data.val_files = (
                None if val is None else str(_keep(run_dir / "val.parquet", val))
            )
            resolved.data.image_cache_gb = sft_settings(config).image_cache_gb
            resolved.trainer.total_training_steps = steps
        write_atomic(run_dir / "resolved.yaml", OmegaConf.to_yaml(resolved))
        if last_step(run_dir) < steps:
            _supervise(config, run_dir, progress, lock)
        if last_step(run_dir) < steps:
            raise InfraError(
                f"the trainer ended before step {steps}\n  log: {run_dir / TRAINER_LOG}"
            )
        return _export(config, run_dir)


def finished_sft(config: DictConfig) -> Path | None:
    """Return the policy of this run if it was trained to its end.

    Raises:
        UsageError: the run folder holds another run.
    """
    run_dir = Path(config.seg.run_dir)
    done = run_folder.policy_record(run_dir)
    if done is None:
        return None
    run_folder.claim(run_dir, config)
    wanted = config.trainer.total_training_steps
    return (
        run_dir / "policy"
        if done["wanted"] == wanted or (wanted is not None and done["step"] >= wanted)
        else None
    )


def _keep(path: Path, encoded: Encoded) -> Path:
    """Store the episodes with the run; a run that goes on must go on with the same."""
    if not path.is_file():
        write_encoded(path, encoded)
    elif not pq.read_table(path).equals(as_table(encoded)):
        raise UsageError(
            f"{path.parent}: its episodes or their encoding have changed since; choose another "
            "folder with seg.run_dir=…"
        )
    return path


def _environment(config: DictConfig) -> dict[str, str]:
    """Return what all processes share; process group and ports as torchrun would set them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = str(config.trainer.n_gpus_per_node)
    added = {
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if config.trainer.device == "cpu":
        # The FSDP2 engine registered for cuda serves the CPU as it is; under the name of the CPU
        # verl has none.
        added["VERL_ENGINE_DEVICE"] = "cuda"
    return {**trainer_environment(config, config.model.path, PLUGIN_MODULE), **added}


def _supervise(config: DictConfig, run_dir: Path, progress: Progress, lock: int) -> None:
    log = run_dir / TRAINER_LOG
    begin = log.stat().st_size if log.is_file() else 0
    shared, children = _environment(config), list[subprocess.Popen[bytes]]()
    try:
        for rank in map(str, range(config.trainer.n_gpus_per_node)):
            children.append(
                start_trainer(
                    "verl.trainer.sft_trainer",
                    run_dir,
                    {**shared, "RANK": rank, "LOCAL_RANK": rank},
                    lock,
                )
            )
        _watch(children, run_dir, progress)
    finally:
        for child in children:
            stop_trainer(child)
    code = next((child.returncode for child in children if child.returncode), 0)
    if code:
        raise InfraError(
            f"the trainer ended with exit code {code}: {last_error(log, begin)}\n  log: {log}"
        )


def _watch(children: Sequence[subprocess.Popen[bytes]], run_dir: Path, progress: Progress) -> None:
    """Report steps until all have ended, or one has failed."""

    def report(step: int, metrics: dict[str, float]) -> None:
        if "train/loss" not in metrics and "val/loss" not in metrics:
            raise InfraError(
                f"step {step}: the loss is not a number; lower optim.lr, or look at the episodes"
            )
        progress(step, metrics)

    seen, codes = 0, [None]
    while None in codes and not any(codes):
        codes = [child.poll() for child in children]
        seen = report_steps(run_dir, seen, report)
        time.sleep(0 if None not in codes else POLL_S)


def _export(config: DictConfig, run_dir: Path) -> Path:
    step = last_step(run_dir)
    return run_folder.export_policy(
        run_dir,
        run_dir / "checkpoints" / f"global_step_{step}" / "huggingface",
        config.model.path,
        lora=config.model.lora_rank > 0,
        settings=episode_settings(config),
        record={"step": step, "wanted": config.trainer.total_training_steps},
    )
