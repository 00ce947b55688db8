"""Run stock `verl.trainer.main_ppo` as a child process: start what it needs, show its progress, stop what was started, explain a failure in one line."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seg_research.core.errors import InfraError, UsageError
from seg_research.core.files import read_jsonl, write_atomic
from seg_research.training.config import episode_settings
from seg_research.training.host import STOP_FILE

logger = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, float]], None]
"""Called after each step with its number and verl's metrics."""

AGENT_NAME = "seg_research"
PLUGIN_MODULE = "seg_research.training.plugin"
THREADS_VARIABLE = "SEG_RESEARCH_TORCH_THREADS"

_POLL_S = 0.25
_GRACE_S = 20.0


def launch(config: DictConfig, search_url: str, progress: Progress) -> Path:
    """Train to the end and return the folder of the final policy. A finished run is not run again; an unfinished one resumes from its checkpoint.

    Args:
        search_url: address of the search server that runs already.
        progress: told of each finished step.

    Raises:
        UsageError: the run folder holds another run, or a guard stopped this one.
        InfraError: the trainer failed.
    """
    run_dir = Path(config.seg.run_dir)
    _claim(run_dir, config)
    (run_dir / STOP_FILE).unlink(missing_ok=True)
    write_atomic(run_dir / "agent_loops.yaml", f"- name: {AGENT_NAME}\n  _target_: seg_research.training.agent_loop.SegAgentLoop\n")
    resolved = config.copy()
    resolved.seg.search.url = search_url
    write_atomic(run_dir / "resolved.yaml", OmegaConf.to_yaml(resolved))
    _supervise(config, run_dir, progress)
    return _export(config, run_dir)


def finished_policy(config: DictConfig) -> Path | None:
    """Return the policy of this run if it is finished.

    Raises:
        UsageError: the run folder holds another run.
    """
    run_dir = Path(config.seg.run_dir)
    _claim(run_dir, config)
    policy = run_dir / "policy"
    return policy if (policy / "config.json").is_file() else None


def _claim(run_dir: Path, config: DictConfig) -> None:
    """Refuse a folder that holds a run with other settings (the number of steps may grow, the search server may move)."""
    mine = OmegaConf.to_container(config, resolve=False)
    claim = run_dir / "claim.json"
    if claim.is_file() and _comparable(json.loads(claim.read_text(encoding="utf-8"))) != _comparable(mine):
        raise UsageError(f"{run_dir}: holds a run with other settings; choose another folder with seg.run_dir=… or delete it")
    write_atomic(claim, json.dumps(mine))


def _comparable(values: Any) -> str:
    values = json.loads(json.dumps(values))
    values["trainer"].pop("total_training_steps", None)
    values["seg"].pop("search", None)
    return json.dumps(values, sort_keys=True)


def _environment(config: DictConfig, run_dir: Path) -> dict[str, str]:
    threads = str(config.seg.threads)
    added = {
        "VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE,
        "VERL_FILE_LOGGER_PATH": str(run_dir / "metrics.jsonl"),
        "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Threads that spin at barriers cost a loaded machine far more than they save an idle one (measured: ten times).
        "OMP_WAIT_POLICY": "PASSIVE",
        "HYDRA_FULL_ERROR": "1",
    }
    if config.trainer.device == "cpu":
        # The FSDP2 engine registered for cuda serves the CPU as it is.
        added |= {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda", "TQ_NUM_THREADS": "1", "OMP_NUM_THREADS": threads, THREADS_VARIABLE: threads}
    if Path(config.actor_rollout_ref.model.path).is_dir():
        added["HF_HUB_OFFLINE"] = "1"
    return {**os.environ, **added}


def _supervise(config: DictConfig, run_dir: Path, progress: Progress) -> None:
    log_path = run_dir / "trainer.log"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", str(run_dir), "--config-name", "resolved"]
    command += [f"hydra.run.dir={run_dir}", "hydra.output_subdir=null", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    metrics = run_dir / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    with log_path.open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(config, run_dir), start_new_session=True)
    try:
        seen = 0
        while child.poll() is None:
            seen = _report(metrics, seen, progress)
            if (run_dir / STOP_FILE).is_file():
                raise UsageError(f"the run was stopped: {(run_dir / STOP_FILE).read_text(encoding='utf-8').strip()}\n  log: {log_path}")
            time.sleep(_POLL_S)
        _report(metrics, seen, progress)
    finally:
        _stop(child)
    if (run_dir / STOP_FILE).is_file():
        raise UsageError(f"the run was stopped: {(run_dir / STOP_FILE).read_text(encoding='utf-8').strip()}\n  log: {log_path}")
    if child.returncode != 0:
        raise InfraError(f"the trainer ended with exit code {child.returncode}: {last_error(log_path)}\n  log: {log_path}")


def _report(metrics: Path, seen: int, progress: Progress) -> int:
    """Report steps that are new in verl's metrics file."""
    if not metrics.is_file():
        return seen
    whole = metrics.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1].splitlines()
    for line in lines[seen:]:
        record = json.loads(line)
        progress(int(record["step"]), record["data"])
    return len(lines)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the trainer and what it started; Ray's own processes end with the driver."""
    if child.poll() is not None:
        return
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(child.pid, sign)
        try:
            child.wait(_GRACE_S)
            return
        except subprocess.TimeoutExpired:
            logger.warning("the trainer did not end after %s", sign.name)


_ERROR_LINE = re.compile(r"^(?:\S*(?:Error|Exception)\b.*|.*\b\w+(?:Error|Exception): .*)$")


def last_error(log_path: Path) -> str:
    """Find the last line of a log that names an error."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-400:]
    errors = [line.strip() for line in lines if _ERROR_LINE.match(line.strip())]
    return re.sub(r"\x1b\[[0-9;]*m", "", errors[-1])[:400] if errors else "no error was logged; the system may have run out of memory"


def _export(config: DictConfig, run_dir: Path) -> Path:
    """Copy the last checkpoint's plain model folder, with the episode settings it was trained under."""
    steps = sorted((run_dir / "checkpoints").glob("global_step_*/actor/huggingface/config.json"), key=lambda p: int(p.parts[-4].rpartition("_")[2]))
    if not steps:
        raise InfraError(f"the trainer ended without a checkpoint; set trainer.save_freq to a positive number (log: {run_dir / 'trainer.log'})")
    staged = run_dir / ".policy"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(steps[-1].parent, staged)
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja"):
        source = Path(config.actor_rollout_ref.model.path) / name
        if source.is_file() and not (staged / name).exists():
            shutil.copy(source, staged / name)
    episode_settings(config).save(staged)
    return staged.rename(run_dir / "policy")


def learning_curve(run_dir: Path) -> list[dict[str, Any]]:
    """Summarise the trajectory log by training step: mean reward, terms, searches, and the share of well-formed episodes; one row a step."""
    by_step: dict[int, dict[tuple[str, int], dict[str, Any]]] = {}
    for path in sorted((run_dir / "trajectories").glob("worker-*.jsonl"), key=lambda p: p.stat().st_mtime):
        for record in read_jsonl(path):
            if record["score"] is not None:
                # A resumed run repeats its interrupted step; the later attempt counts.
                by_step.setdefault(record["global_step"], {})[(record["id"], record["sample_idx"])] = record
    return [_curve_row(step, list(records.values())) for step, records in sorted(by_step.items())]


def _curve_row(step: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    terms = {name: mean([r["rewards"][name] for r in records]) for name in records[0]["rewards"]}
    observations = [t for r in records for t in r["turns"] if t["role"] != "assistant" and t["outcome"] != "fault"]
    return {
        "step": step,
        "episodes": len(records),
        "reward": mean([r["score"] for r in records]),
        "terms": terms,
        "searches": mean([r["num_search"] for r in records]),
        "valid": mean([float(r["rewards"]["format"] == 1.0) for r in records]),
        "answered": mean([float(r["stop_reason"] == "answered") for r in records]),
        "tool_success": mean([float(t["outcome"] in ("ok", "empty")) for t in observations]) if observations else 0.0,
        "response_tokens": mean([r["num_response_tokens"] for r in records]),
    }
