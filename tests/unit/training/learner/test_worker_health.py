"""A dead worker is noticed, a busy one is let alone; Ray does not run, its answers are made up."""

from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="ray comes with the train extra")

import ray
from ray.exceptions import RayActorError

from seg_common.errors import InfraError
from seg_research.training.learner import worker_health
from seg_research.training.learner.worker_health import WorkerHealth


class Worker:
    """Answers `ready`, or does not answer yet (None), or is dead (an error)."""

    def __init__(self, answer):
        self.answer, self.asked = answer, 0
        self.__ray_ready__ = SimpleNamespace(remote=self.ask)

    def ask(self):
        self.asked += 1
        return (self, self.asked)


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    def wait(references, num_returns, timeout):
        assert timeout == 0
        ready = [reference for reference in references if reference[0].answer is not None]
        return ready, [reference for reference in references if reference not in ready]

    def get(reference):
        if isinstance(reference[0].answer, Exception):
            raise reference[0].answer
        return reference[0].answer

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)


def test_a_dead_worker_ends_the_step_with_what_to_do():
    fine, dead = Worker(True), Worker(RayActorError(error_msg="killed by the kernel\nmore"))
    with pytest.raises(
        InfraError,
        match=(
            r"has died, perhaps for want of memory \(killed by the kernel\); the same command"
            r" goes on"
        ),
    ):
        WorkerHealth(period_s=0).check([fine, dead])


def test_a_busy_worker_is_asked_once_and_awaited():
    busy, watch = Worker(None), WorkerHealth(period_s=0)
    for _ in range(3):
        watch.check([busy])
    assert busy.asked == 1
    busy.answer = True
    watch.check([busy])
    watch.check([busy])
    assert busy.asked == 2


@pytest.mark.parametrize("seconds_since_boot", [0.0, 3.0, 1e6])
def test_workers_are_not_asked_at_every_poll(monkeypatch, seconds_since_boot):
    monkeypatch.setattr(
        worker_health, "time", SimpleNamespace(monotonic=lambda: seconds_since_boot)
    )
    worker, watch = Worker(True), WorkerHealth(period_s=3600)
    for _ in range(5):
        watch.check([worker])
    assert worker.asked == 1


def test_without_workers_there_is_nothing_to_watch():
    WorkerHealth(period_s=0).check([])
