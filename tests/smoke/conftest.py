"""The smallest training run there is, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROMPTS, ROLLOUTS = 2, 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put training runs first: where tests run in several processes, the longest must not begin
    last.
    """
    items.sort(key=lambda item: item.get_closest_marker("verl") is None)


@dataclass
class Run:
    """`seg-research train` with a folder of its own; what is left of it is ended with the test."""

    folder: Path
    values: dict[str, Any]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    family: dict[int, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return (self.folder.parent / "stderr").read_text()

    @property
    def told(self) -> list[str]:
        """What the last attempt says to its user in the end."""
        return [line for line in self.said.splitlines() if line.startswith("seg-research: ")]

    @property
    def log(self) -> str:
        return (self.folder / "trainer.log").read_text(errors="replace")

    def start(self) -> None:
        self.family.clear()
        arguments = [
            f"{key}={value}" for key, value in {**self.values, "seg.run_dir": self.folder}.items()
        ]
        command = [sys.executable, "-m", "seg_research.cli.main", "train", *arguments]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / "stderr").open("wb") as stderr:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(
                command,
                stderr=stderr,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
                # A shell's background jobs ignore Ctrl-C, and so does what they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def members(self) -> list[Any]:
        """Return all processes that ever descended from the launcher, as far as they were seen;
        Ray's do not stay its descendants.
        """
        import psutil

        assert self.process is not None
        roots = [self.process.pid, *self.family]
        for pid in roots:
            try:
                root = psutil.Process(pid)
                self.family.setdefault(pid, root)
                self.family |= {
                    child.pid: child
                    for child in root.children(recursive=True)
                    if child.pid not in self.family
                }
            except psutil.NoSuchProcess:
                continue
        return list(self.family.values())

    def worker(self, title: str) -> Any:
        """Return the process of the Ray actor with this title."""
        import psutil

        running = [
            p for p in self.members() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE
        ]
        (found,) = [p for p in running if f"ray::{title}" in "".join(p.cmdline())]
        return found

    def left_behind(self) -> list[str]:
        """Wait for all processes of the last attempt and return the commands of those that stay."""
        import psutil

        members = self.members()
        assert len(members) > 5, "launcher, driver, Ray and its workers were seen"
        _gone, alive = psutil.wait_procs(members, timeout=180)
        return [
            " ".join(process.cmdline())[:80]
            for process in alive
            if process.status() != psutil.STATUS_ZOMBIE
        ]

    def wait_until(self, condition: Callable[[], bool], seconds: float = 1500) -> None:
        assert self.process is not None
        give_up = time.monotonic() + seconds
        while not condition():
            self.members()
            assert self.process.poll() is None, (
                f"{self.said[-2000:]}\n"
                f"{self.log[-3000:] if (self.folder / 'trainer.log').exists() else ''}"
            )
            assert time.monotonic() < give_up, f"waited {seconds} s in vain\n{self.log[-3000:]}"
            time.sleep(0.2)

    def finish(self, seconds: float = 1500) -> int:
        """Wait for the end and return the exit code."""
        assert self.process is not None
        give_up = time.monotonic() + seconds
        while self.process.poll() is None:
            self.members()
            assert time.monotonic() < give_up, (
                f"still running after {seconds} s\n{self.log[-3000:]}"
            )
            time.sleep(1)
        return self.process.returncode

    def complete(self) -> None:
        self.start()
        assert self.finish() == 0, f"{self.said[-2000:]}\n{self.log[-3000:]}"

    def kill_everything(self) -> None:
        """End all of it at once, as a loss of power would."""
        import psutil

        members = self.members()
        for process in members:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        if self.process is not None:
            self.process.wait()
        psutil.wait_procs(members, timeout=30)

    def records(self) -> list[dict[str, Any]]:
        """Return the logged trajectories, later files last; a line that is being written is left
        out.
        """
        paths = sorted(
            (self.folder / "trajectories").glob("*.jsonl"), key=lambda path: path.stat().st_mtime
        )
        return [
            json.loads(line)
            for path in paths
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def metrics(self) -> list[dict[str, float]]:
        return [
            json.loads(line)["data"]
            for line in (self.folder / "metrics.jsonl").read_text().splitlines()
        ]


@pytest.fixture(scope="module")
def new_run(one_video, mini, talkative_model, search_url, tmp_path_factory):
    """Return a function of overrides that prepares a run of 2 prompts x 2 rollouts a step."""
    runs: list[Run] = []

    def prepare(
        changes: dict[str, Any] | None = None, environment: dict[str, str] | None = None
    ) -> Run:
        values = {
            "hardware": "cpu",
            "search": "server",
            "seg.search.url": search_url,
            "seg.threads": 1,
            "seg.log_tokens": "true",
            "actor_rollout_ref.model.path": talkative_model,
            "data.train_files": one_video,
            "data.val_files": mini.parquet("val"),
            "data.train_batch_size": PROMPTS,
            "actor_rollout_ref.actor.ppo_mini_batch_size": PROMPTS,
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": PROMPTS,
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": PROMPTS,
            "actor_rollout_ref.rollout.n": ROLLOUTS,
            "actor_rollout_ref.rollout.full_determinism": "true",
            "actor_rollout_ref.rollout.temperature": 0.6,
            # So few episodes may all earn the same; entropy has a gradient always.
            "actor_rollout_ref.actor.entropy_coeff": 0.01,
            "actor_rollout_ref.actor.optim.lr": 1e-4,
            "trainer.total_training_steps": 2,
            "trainer.total_epochs": 3,
            **(changes or {}),
        }
        runs.append(Run(tmp_path_factory.mktemp("small") / "run", values, environment or {}))
        return runs[-1]

    yield prepare
    for run in runs:
        if run.process is not None:
            run.kill_everything()
