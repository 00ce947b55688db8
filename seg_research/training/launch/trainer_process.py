"""A trainer of verl as a child process: how it is started, watched and stopped, and what its log
says of a failure.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from omegaconf import DictConfig

from seg_research.training.launch.parent_watchdog import LAUNCHER_VARIABLE, THREADS_VARIABLE
from seg_research.training.launch.run_folder import METRICS_FILE, TRAINER_LOG

logger = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, float]], None]
"""Called after each step with its number and verl's metrics."""

POLL_S = 0.25

_GRACE_S = 20.0

_SILENCED = (
    # Engines that are not installed and not asked for; verl tries each in every process.
    *(
        f"ignore:{name} engine is not available:UserWarning"
        for name in ("torchtitan", "veomni", "automodel", "mindspeed", "megatron")
    ),
    # how verl's texts on its own deprecated functions begin; it calls one of them for our sampler
    "ignore:Warning:FutureWarning",
    "ignore:'set_vital' is deprecated:UserWarning",  # torchdata calls it in torch
)
"""Warnings of others about their own affairs, as PYTHONWARNINGS wants them; what is left in the log
deserves to be read.
"""


def trainer_environment(config: DictConfig, model: str, plugin: str) -> dict[str, str]:
    """Return the environment of a trainer.

    Args:
        config: of the run.
        model: what the training starts from.
        plugin: our module that verl loads in each of its processes.
    """
    run_dir, threads = Path(config.seg.run_dir), str(config.seg.threads)
    added = {
        "VERL_USE_EXTERNAL_MODULES": plugin,
        LAUNCHER_VARIABLE: str(os.getpid()),
        "VERL_FILE_LOGGER_PATH": str(run_dir / METRICS_FILE),
        "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
        "WANDB_DIR": str(run_dir),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Threads that spin at barriers cost a loaded machine far more than they save an idle one
        # (measured: ten times).
        "OMP_WAIT_POLICY": "PASSIVE",
        # An episode's pixels are some 50 MB in one piece, which costs three times as much in small
        # memory pages (measured).
        "THP_MEM_ALLOC_ENABLE": "1",
        "HYDRA_FULL_ERROR": "1",
        "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), *_SILENCED])),
    }
    if config.trainer.device == "cpu":
        added |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": threads, THREADS_VARIABLE: threads}
    if Path(model).is_dir():
        added["HF_HUB_OFFLINE"] = "1"
    return {**os.environ, **added}


def start_trainer(
    module: str, run_dir: Path, environment: Mapping[str, str], lock: int
) -> subprocess.Popen[bytes]:
    """Start a module of verl on the folder's `resolved.yaml`, in a session of its own; it writes to
    the log and holds the folder's lock.
    """
    # Not `-m`: our plugin makes verl import this module before it would run, and Python would then
    # have it twice.
    command = [
        sys.executable,
        "-c",
        f"from {module} import main; main()",
        "--config-path",
        str(run_dir),
        "--config-name",
        "resolved",
    ]
    quoted = str(run_dir).replace("'", "\\'")
    command += [
        f"hydra.run.dir='{quoted}'",
        "hydra.output_subdir=null",
        "hydra/job_logging=disabled",
        "hydra/hydra_logging=disabled",
    ]
    with (run_dir / TRAINER_LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[lock],
        )


def stop_trainer(child: subprocess.Popen[bytes]) -> None:
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


def report_steps(run_dir: Path, seen: int, progress: Progress) -> int:
    """Report the steps in verl's metrics file behind the first `seen`; return how many there are
    now.
    """
    metrics = run_dir / METRICS_FILE
    if not metrics.is_file():
        return seen
    whole = metrics.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1].splitlines()
    for line in lines[seen:]:
        record = json.loads(line)
        # JSON has no word for what is not a number: verl writes null.
        progress(
            int(record["step"]),
            {name: value for name, value in record["data"].items() if value is not None},
        )
    return len(lines)


_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
_RAY_PREFIX = re.compile(r"^\(\w+ pid=\d+\)\s*")
_ERROR_LINE = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception)\b(?:\(\w+\))?(?::\s|$)")


def last_error(log_path: Path, begin: int = 0) -> str:
    """Find the last line of a log, from byte `begin` on, that names an error."""
    text = log_path.read_bytes()[begin:].decode("utf-8", errors="replace")
    lines = [
        _RAY_PREFIX.sub("", _TERMINAL_CODES.sub("", line).strip())
        for line in text.splitlines()[-400:]
    ]
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    return (
        errors[-1][:400] if errors else "no error was logged; the system may have run out of memory"
    )


_RAY_NOT_STARTED = re.compile(
    r"The current node timed out during startup|while waiting for node to startup|Failed to start "
    r"GCS"
)
_TASK_STARTED = re.compile(r"\(TaskRunner\w* pid=\d+\)")


def ray_did_not_start(log_path: Path, begin: int = 0) -> bool:
    """Tell whether a trainer failed, by its log from byte `begin` on, before its cluster was up.

    Ray allows its own processes 30 s to start, which no option changes; a busy machine needs more.
    """
    text = log_path.read_bytes()[begin:].decode("utf-8", errors="replace")
    return bool(_RAY_NOT_STARTED.search(text)) and not _TASK_STARTED.search(text)
