"""Run stock `verl.trainer.main_ppo` as a child process: show its progress, stop what was started, explain a failure in one line."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from seg_research.core.errors import InfraError, UsageError
from seg_research.core.files import read_jsonl, repair_jsonl, write_atomic
from seg_research.training.config import episode_settings, leaves
from seg_research.training.host import STOP_FILE, VALIDATION_KEY
from seg_research.training.lifeline import LAUNCHER_VARIABLE
from seg_research.training.worst import WORST_FILE, save_worst

logger = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, float]], None]
"""Called after each step with its number and verl's metrics."""

AGENT_NAME = "seg_research"
PLUGIN_MODULE = "seg_research.training.plugin"
THREADS_VARIABLE = "SEG_RESEARCH_TORCH_THREADS"

METRICS_FILE = "metrics.jsonl"
_STEP_FILE = "training.json"
_MAY_CHANGE = frozenset({"trainer.total_training_steps", "seg.run_dir", "seg.search.url", "seg.search.deadline_s", "seg.threads"}) | {
    f"seg.search.max_{what}_per_{period}" for what in ("calls", "usd") for period in ("run", "day")
}
"""Settings with which an interrupted run may go on."""

_POLL_S = 0.25
_GRACE_S = 20.0


def launch(config: DictConfig, search_url: str, progress: Progress) -> Path:
    """Train to the end and return the folder of the final policy; a run that was interrupted goes on from its last checkpoint.

    `search_url` is the address of a search server that runs; `progress` is told of each finished step.

    Raises:
        UsageError: the run folder holds another run or is in use, or a guard stopped this run.
        InfraError: the trainer failed.
    """
    run_dir = Path(config.seg.run_dir)
    with _exclusive(run_dir) as lock:
        _claim(run_dir, config)
        _tidy(run_dir)
        write_atomic(run_dir / "agent_loops.yaml", f"- name: {AGENT_NAME}\n  _target_: seg_research.training.agent_loop.SegAgentLoop\n")
        resolved = config.copy()
        resolved.seg.search.url = search_url
        write_atomic(run_dir / "resolved.yaml", OmegaConf.to_yaml(resolved))
        if _last_checkpoint(run_dir).step < (config.trainer.total_training_steps or sys.maxsize):
            _supervise(config, run_dir, progress, lock)
        return _export(config, run_dir)


def finished_policy(config: DictConfig) -> Path | None:
    """Return the policy of this run if it was trained for as many steps as are wanted now.

    Raises:
        UsageError: the run folder holds another run.
    """
    run_dir = Path(config.seg.run_dir)
    _claim(run_dir, config)
    record = run_dir / "policy" / _STEP_FILE
    if not record.is_file():
        return None
    step: int = json.loads(record.read_text(encoding="utf-8"))["step"]
    return record.parent if step >= (config.trainer.total_training_steps or 0) else None


def _claim(run_dir: Path, config: DictConfig) -> None:
    """Refuse a folder that holds a run with other settings, but for those that say nothing about what is trained."""
    mine = _comparable(OmegaConf.to_container(config, resolve=False))
    claim = run_dir / "claim.json"
    if claim.is_file():
        theirs = json.loads(claim.read_text(encoding="utf-8"))
        differing = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
        if differing:
            what = ", ".join(differing[:3]) + (", …" if len(differing) > 3 else "")
            raise UsageError(f"{run_dir}: holds a run with other settings ({what}); choose another folder with seg.run_dir=… or delete it")
    else:
        write_atomic(claim, json.dumps(mine, indent=1, sort_keys=True))


def _comparable(values: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(leaves(values)))
    return {key: value for key, value in plain.items() if key not in _MAY_CHANGE}


@contextmanager
def _exclusive(run_dir: Path) -> Generator[int]:
    """Hold the run folder. The trainer holds it as well, so that one whose launcher was killed has ended before the next one starts.

    Raises:
        UsageError: somebody else holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as handle:
        give_up = time.monotonic() + 2 * _GRACE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise UsageError(f"{run_dir}: another process is training here; wait for it, or choose another seg.run_dir") from None
                time.sleep(_POLL_S)
        yield handle.fileno()


def _tidy(run_dir: Path) -> None:
    """Remove what an interrupted attempt left half done; keep its metrics under another name, because verl begins the file anew."""
    for name in (STOP_FILE, WORST_FILE):
        (run_dir / name).unlink(missing_ok=True)
    for path in (run_dir / "trajectories").glob("*.jsonl"):
        repair_jsonl(path)
    metrics = run_dir / METRICS_FILE
    if metrics.is_file():
        earlier = len(list(run_dir.glob("metrics.*.jsonl")))
        metrics.rename(metrics.with_suffix(f".{earlier}.jsonl"))


def _environment(config: DictConfig, run_dir: Path) -> dict[str, str]:
    threads = str(config.seg.threads)
    added = {
        "VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE,
        LAUNCHER_VARIABLE: str(os.getpid()),
        "VERL_FILE_LOGGER_PATH": str(run_dir / METRICS_FILE),
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
        added |= {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda", "TQ_NUM_THREADS": "1"}
        added |= {"OMP_NUM_THREADS": threads, THREADS_VARIABLE: threads}
    if Path(config.actor_rollout_ref.model.path).is_dir():
        added["HF_HUB_OFFLINE"] = "1"
    return {**os.environ, **added}


def _supervise(config: DictConfig, run_dir: Path, progress: Progress, lock: int) -> None:
    log_path = run_dir / "trainer.log"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", str(run_dir), "--config-name", "resolved"]
    quoted = str(run_dir).replace("'", "\\'")
    command += [f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    environment = _environment(config, run_dir)
    with log_path.open("ab") as log:
        begin = log.tell()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[lock],
        )
    try:
        seen = 0
        while child.poll() is None and not (run_dir / STOP_FILE).is_file():
            seen = _report(run_dir / METRICS_FILE, seen, progress)
            time.sleep(_POLL_S)
        _report(run_dir / METRICS_FILE, seen, progress)
    finally:
        _stop(child)
    if (run_dir / STOP_FILE).is_file():
        raise UsageError(_stop_message(run_dir, log_path))
    if child.returncode != 0:
        raise InfraError(f"the trainer ended with exit code {child.returncode}: {last_error(log_path, begin)}\n  log: {log_path}")


def _stop_message(run_dir: Path, log_path: Path) -> str:
    """Say why the run was stopped and where to look; the trainer has ended."""
    lines = [f"the run was stopped: {(run_dir / STOP_FILE).read_text(encoding='utf-8').strip()}"]
    worst = save_worst(run_dir)
    if worst is not None:
        lines.append(f"  worst trajectories: {worst}; to see them: seg-research report --run {run_dir}")
    return "\n".join([*lines, f"  log: {log_path}"])


def _report(metrics: Path, seen: int, progress: Progress) -> int:
    """Report steps that are new in verl's metrics file."""
    if not metrics.is_file():
        return seen
    whole = metrics.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1].splitlines()
    for line in lines[seen:]:
        record = json.loads(line)
        # JSON has no word for what is not a number: verl writes null.
        progress(int(record["step"]), {name: value for name, value in record["data"].items() if value is not None})
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


_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
_RAY_PREFIX = re.compile(r"^\(\w+ pid=\d+\)\s*")
_ERROR_LINE = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception)\b(?:\(\w+\))?(?::\s|$)")


def last_error(log_path: Path, begin: int = 0) -> str:
    """Find the last line of a log, from byte `begin` on, that names an error."""
    text = log_path.read_bytes()[begin:].decode("utf-8", errors="replace")
    lines = [_RAY_PREFIX.sub("", _TERMINAL_CODES.sub("", line).strip()) for line in text.splitlines()[-400:]]
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    return errors[-1][:400] if errors else "no error was logged; the system may have run out of memory"


def _export(config: DictConfig, run_dir: Path) -> Path:
    """Copy the last checkpoint's plain model folder, with the episode settings it was trained under."""
    last = _last_checkpoint(run_dir)
    if last.model is None:
        raise InfraError(f"the trainer ended without a checkpoint\n  log: {run_dir / 'trainer.log'}")
    staged, policy = run_dir / ".policy", run_dir / "policy"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(last.model, staged)
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja"):
        source = Path(config.actor_rollout_ref.model.path) / name
        if source.is_file() and not (staged / name).exists():
            shutil.copy(source, staged / name)
    episode_settings(config).save(staged)
    write_atomic(staged / _STEP_FILE, json.dumps({"step": last.step}) + "\n")
    shutil.rmtree(policy, ignore_errors=True)
    return staged.rename(policy)


class _Checkpoint(NamedTuple):
    step: int
    model: Path | None


def _last_checkpoint(run_dir: Path) -> _Checkpoint:
    """Find the last checkpoint that verl finished writing; step 0 if there is none."""
    folder = run_dir / "checkpoints"
    tracker = folder / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        return _Checkpoint(0, None)
    step = int(tracker.read_text(encoding="utf-8"))
    return _Checkpoint(step, folder / f"global_step_{step}" / "actor" / "huggingface")


def learning_curve(run_dir: Path) -> list[dict[str, Any]]:
    """Summarise the trajectory log by training step, one row a step: mean reward and terms, searches, share of well-formed episodes."""
    by_step: dict[int, dict[tuple[str, int], dict[str, Any]]] = {}
    for path in sorted((run_dir / "trajectories").glob("worker-*.jsonl"), key=lambda p: p.stat().st_mtime):
        for record in read_jsonl(path):
            if record["score"] is not None and not record[VALIDATION_KEY]:
                # A resumed run repeats its interrupted step; the later attempt counts.
                by_step.setdefault(record["global_step"], {})[(record["id"], record["sample_idx"])] = record
    return [_curve_row(step, list(records.values())) for step, records in sorted(by_step.items())]


def _curve_row(step: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    # A term that did not run in an episode, as guidance on a question without annotated steps, says nothing there.
    ran = {name: [r["rewards"][name] for r in records if r["rewards"][name] is not None] for name in records[0]["rewards"]}
    observations = [t for r in records for t in r["turns"] if t["role"] != "assistant" and t["outcome"] != "fault"]
    return {
        "step": step,
        "episodes": len(records),
        "reward": mean([r["score"] for r in records]),
        "terms": {name: mean(values) for name, values in ran.items() if values},
        "searches": mean([r["num_search"] for r in records]),
        "valid": mean([float(r["rewards"]["format"] == 1.0) for r in records]),
        "answered": mean([float(r["stop_reason"] == "answered") for r in records]),
        "tool_success": mean([float(t["outcome"] in ("ok", "empty")) for t in observations]) if observations else 0.0,
        "response_tokens": mean([r["num_response_tokens"] for r in records]),
    }
