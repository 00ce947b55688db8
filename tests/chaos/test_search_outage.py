"""The search server dies while a run is training: the run stops, says which service failed, and leaves nothing running behind."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")
pytestmark = [pytest.mark.verl, pytest.mark.slow]

psutil = pytest.importorskip("psutil")


@pytest.fixture
def trainer(one_video, mini, talkative_model, tmp_path):
    """Start `seg-research train` in the background; gives a function of overrides, and ends what is left of it afterwards."""
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
        command = [sys.executable, "-m", "seg_research.cli.main", "train", *(f"{key}={value}" for key, value in values.items())]
        with (tmp_path / "stderr").open("wb") as stderr:
            started.append(subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def num_logged(run_dir: Path) -> int:
    return sum(path.read_text().count("\n") for path in (run_dir / "trajectories").glob("*.jsonl"))


def wait_until(condition, process: subprocess.Popen, seconds: float, log: Path) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < give_up, f"waited {seconds} s in vain"
        time.sleep(0.1)


def test_a_search_server_that_dies_ends_the_run_with_one_line_that_names_it(trainer, mini, tmp_path):
    from retrieval_server.server import running_server

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running_server(mini.text, mini.images))
        process = trainer(search="server", **{"seg.search.url": url, "trainer.total_training_steps": 100, "trainer.total_epochs": 100})
        wait_until(lambda: num_logged(tmp_path / "run") >= 16, process, 300, tmp_path / "stderr")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) > 3, "launcher, driver, Ray and its workers"
    process.wait(120)
    told = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("seg-research: ")]
    assert process.returncode == 2
    assert len(told) == 1
    assert "failing service" in told[0]
    assert url in told[0]
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert [p.name() for p in alive] == []


def test_a_run_whose_launcher_is_killed_ends_and_goes_on_where_it_was(trainer, mini, tmp_path):
    run_dir = tmp_path / "run"
    local = {"seg.search.text": mini.text, "seg.search.images": mini.images, "trainer.save_freq": 1, "trainer.total_training_steps": 3}
    process = trainer(**local)
    tracker = run_dir / "checkpoints" / "latest_checkpointed_iteration.txt"
    wait_until(tracker.is_file, process, 300, tmp_path / "stderr")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert [p.name() for p in alive] == []
    done = int(tracker.read_text())
    assert done < 3

    process = trainer(**local)
    process.wait(400)
    assert process.returncode == 0, (tmp_path / "stderr").read_text()[-2000:]
    assert tracker.read_text() == "3"
    assert (run_dir / "policy" / "model.safetensors").is_file()
    from seg_research.training.launch import learning_curve

    curve = learning_curve(run_dir)
    assert [(row["step"], row["episodes"]) for row in curve] == [(step, 16) for step in (1, 2, 3)]
    assert (run_dir / "metrics.0.jsonl").is_file(), "the metrics of the first attempt"
