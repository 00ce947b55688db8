"""The launcher is killed: the trainer does not live on alone, and the same command goes on from the
last checkpoint.
"""

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import psutil

from seg_research.training.launch.learning_curve import learning_curve

pytestmark = [pytest.mark.verl, pytest.mark.slow]


def test_a_run_whose_launcher_is_killed_ends_and_goes_on_where_it_was(
    trainer, wait_until, mini, tmp_path
):
    run_dir = tmp_path / "run"
    local = {
        "seg.search.text": mini.text,
        "seg.search.images": mini.images,
        "trainer.save_freq": 1,
        "trainer.total_training_steps": 3,
    }
    process = trainer(**local)
    tracker = run_dir / "checkpoints" / "latest_checkpointed_iteration.txt"
    wait_until(tracker.is_file, process, 300)
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
    curve = learning_curve(run_dir)
    assert [(row["step"], row["episodes"]) for row in curve] == [(step, 16) for step in (1, 2, 3)]
    assert (run_dir / "metrics.0.jsonl").is_file(), "the metrics of the first attempt"
