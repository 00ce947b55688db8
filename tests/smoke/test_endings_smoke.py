"""However a run ends, it says how in one line, keeps what was written, and leaves no process
behind.
"""

import re
import signal
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import psutil

pytestmark = [pytest.mark.slow, pytest.mark.verl]

ENDLESS = {"trainer.total_training_steps": 1000, "trainer.total_epochs": 1000}
KNOWN = (
    # verl, where libnuma is not installed; single-socket machines lose nothing
    "Failed to set NUMA affinity",
)


@pytest.fixture
def start(new_run, mini):
    """Return a function that starts a run with a search server of its own; it must end without
    help.
    """

    def begin(changes=None, environment=None):
        local = {
            "search": "local",
            "seg.search.url": "null",
            "seg.search.text": mini.text,
            "seg.search.images": mini.images,
        }
        run = new_run({**local, **(changes or {})}, environment)
        run.start()
        return run

    return begin


def told(run) -> list[str]:
    return [line for line in run.said.splitlines() if line.startswith("seg-research: ")]


def left_behind(run) -> list[str]:
    members = run.members()
    assert len(members) > 5, "launcher, search server, driver, Ray and its workers were seen"
    _gone, alive = psutil.wait_procs(members, timeout=180)
    return [
        " ".join(process.cmdline())[:80]
        for process in alive
        if process.status() != psutil.STATUS_ZOMBIE
    ]


def worker(run, title: str) -> psutil.Process:
    (found,) = [
        p
        for p in run.members()
        if p.is_running()
        and p.status() != psutil.STATUS_ZOMBIE
        and f"ray::{title}" in "".join(p.cmdline())
    ]
    return found


def test_a_run_that_comes_to_its_end(start):
    run = start({"trainer.total_training_steps": 1})
    assert run.finish() == 0, run.said[-2000:]
    assert left_behind(run) == []
    assert told(run) == []
    assert (run.folder / "policy" / "model.safetensors").is_file()
    assert "Traceback" not in run.log
    warned = [line for line in run.log.splitlines() if re.search(r"\w*Warning:|Invalid -W", line)]
    assert [line for line in warned if not any(known in line for known in KNOWN)] == []


def test_a_bug_in_a_reward(start):
    run = start(
        {**ENDLESS, "seg.episode.recipe": "broken_recipes:reward"},
        {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert run.finish() == 2, run.said[-2000:]
    assert left_behind(run) == []
    (line,) = told(run)
    assert re.search(
        r"the run was stopped: sample train_\d+_\d: ZeroDivisionError: division by zero", line
    )
    assert "broken_recipes.py" in run.log, "the traceback"
    assert not (run.folder / "policy").exists()


def test_ctrl_c(start):
    run = start(ENDLESS)
    run.wait_until(lambda: len(run.records()) > 0)
    run.process.send_signal(signal.SIGINT)
    assert run.finish(600) == 130, run.said[-2000:]
    assert left_behind(run) == []
    assert told(run) == [
        "seg-research: stopped; what was written is kept, run the same command again to go on"
    ]
    assert {r["global_step"] for r in run.records()} >= {1}


@pytest.mark.parametrize(
    ("title", "says"),
    [
        ("AgentLoopWorker", "a process that runs episodes has died|ActorDiedError"),
        ("WorkerDict", "ActorDiedError|has died"),
        ("TransformersServer", "ActorDiedError|ActorUnavailableError|has died"),
    ],
)
def test_a_worker_that_is_killed(start, title, says):
    run = start(ENDLESS)
    run.wait_until(lambda: len(run.records()) > 0)
    worker(run, title).kill()
    assert run.finish(600) in (1, 2), run.said[-2000:]
    assert left_behind(run) == []
    (line,) = told(run)
    assert re.search(says, line), line
    assert {r["global_step"] for r in run.records()} >= {1}
