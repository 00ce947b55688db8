"""What verl's trackers make of a step's metrics, with the loggers that `logger=…` chooses, as the
launcher sets them up.
"""

import json
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from verl.utils.tracking import Tracking

from seg_research.training.launch.config import compose_config
from seg_research.training.launch.launcher import ppo_environment
from seg_research.training.launch.run_folder import METRICS_FILE

METRICS = {"seg/mean/num_search": 2.5, "seg/logprob_gap/turn_1": 1e-3, "seg/groups/no_signal": 0.25}


@pytest.fixture
def track(mini, tiny_folder, tmp_path, monkeypatch):
    """Return a function that logs two steps with the loggers of a choice, in the environment of a
    run.
    """
    monkeypatch.chdir(tmp_path)

    def log(choice: str) -> Path:
        given = {
            "logger": choice,
            "seg.run_dir": tmp_path / "run",
            "data.train_files": mini.parquet("train"),
            "data.val_files": mini.parquet("val"),
            "actor_rollout_ref.model.path": tiny_folder,
            "seg.search.text": mini.text,
        }
        config = compose_config([f"{key}={value}" for key, value in given.items()])
        run_dir = Path(config.seg.run_dir)
        run_dir.mkdir()
        for name, value in ppo_environment(config).items():
            if name in ("TENSORBOARD_DIR", "WANDB_DIR", "VERL_FILE_LOGGER_PATH"):
                monkeypatch.setenv(name, value)
        tracking = Tracking(
            config.trainer.project_name,
            config.trainer.experiment_name,
            list(config.trainer.logger),
            config=None,
        )
        for step in (1, 2):
            tracking.log({name: step * value for name, value in METRICS.items()}, step)
        tracking.finish()
        return run_dir

    return log


def test_the_file_that_the_launcher_reads_is_always_written(track):
    lines = [
        json.loads(line) for line in (track("console") / METRICS_FILE).read_text().splitlines()
    ]
    assert [(line["step"], line["data"]["seg/mean/num_search"]) for line in lines] == [
        (1, 2.5),
        (2, 5.0),
    ]


def test_tensorboard_finds_our_metrics_in_the_run_folder(track):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    board = events.EventAccumulator(str(track("tensorboard") / "tensorboard"))
    board.Reload()
    assert set(METRICS) <= set(board.Tags()["scalars"])
    assert [(event.step, event.value) for event in board.Scalars("seg/mean/num_search")] == [
        (1, 2.5),
        (2, 5.0),
    ]


def test_wandb_writes_into_the_run_folder_and_needs_no_network(track, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_dir = track("wandb")
    # its own process writes the file; at the end of a program this happens by itself
    wandb.teardown()
    (record,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    assert b"seg/mean/num_search" in record.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing beside it"
