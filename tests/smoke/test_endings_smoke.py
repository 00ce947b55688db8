"""A run that cannot go on says why in one line, keeps what was written, and leaves no process
behind; how it ends when something kills it is in `test_disturbed_run.py`.
"""

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from retrieval_server.server import running_server

pytestmark = [pytest.mark.slow, pytest.mark.verl]

ENDLESS = {"trainer.total_training_steps": 1000, "trainer.total_epochs": 1000}


def test_a_bug_in_a_reward(new_run):
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    run = new_run(
        ENDLESS | {"seg.episode.recipe": "broken_recipes:BrokenReward"}, {"PYTHONPATH": path}
    )
    run.start()
    assert run.finish() == 2, run.said[-2000:]
    assert run.left_behind() == []
    (line,) = run.told
    assert re.search(
        r"the run was stopped: sample train_\d+_\d: ZeroDivisionError: division by zero", line
    )
    assert "broken_recipes.py" in run.log, "the traceback"
    assert not (run.folder / "policy").exists()


def test_a_search_server_that_dies_ends_the_run_with_one_line_that_names_it(new_run, mini):
    larger = {
        "seg.search.deadline_s": 10.0,
        "data.train_batch_size": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.rollout.n": 4,
        "actor_rollout_ref.rollout.full_determinism": "false",
    }
    with running_server(mini.text, mini.images) as url:
        run = new_run(ENDLESS | larger | {"seg.search.url": url})
        run.start()
        run.wait_until(lambda: len(run.records()) > 0)
    assert run.finish() == 2, run.said[-2000:]
    assert run.left_behind() == []
    (line,) = run.told
    assert "failing service" in line
    assert url in line
    assert {r["global_step"] for r in run.records()} >= {1}
