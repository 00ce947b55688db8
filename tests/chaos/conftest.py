"""A real training run in the background, to have things happen to it."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def trainer(one_video, mini, talkative_model, tmp_path):
    """Return a function of overrides that starts `seg-research train`; what is left of it is ended
    afterwards.
    """
    started: list[subprocess.Popen] = []

    def start(**changes: object) -> subprocess.Popen:
        values = {
            "hardware": "cpu",
            "seg.run_dir": tmp_path / "run",
            "actor_rollout_ref.model.path": talkative_model,
            "data.train_files": one_video,
            "data.val_files": mini.parquet("val"),
            "data.train_batch_size": 4,
            "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
            "actor_rollout_ref.rollout.n": 4,
            **changes,
        }
        command = [
            sys.executable,
            "-m",
            "seg_research.cli.main",
            "train",
            *(f"{key}={value}" for key, value in values.items()),
        ]
        with (tmp_path / "stderr").open("wb") as stderr:
            started.append(
                subprocess.Popen(
                    command, stderr=stderr, stdout=subprocess.DEVNULL, start_new_session=True
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def wait_until(tmp_path):
    """Return a function that waits for a condition as long as a process runs."""

    def wait(condition: Callable[[], bool], process: subprocess.Popen, seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, (tmp_path / "stderr").read_text()[-2000:]
            assert time.monotonic() < give_up, f"waited {seconds} s in vain"
            time.sleep(0.1)

    return wait
