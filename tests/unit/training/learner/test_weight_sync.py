"""A hand-over of weights that does not end stops the run; one that ends leaves no trace."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from omegaconf import OmegaConf
from verl.checkpoint_engine.base import CheckpointEngineManager
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from seg_research.training.patches import PATCHES
from seg_research.training.run_contract import STOP_FILE

LOG = """\
(WorkerDict pid=1) INFO starting
(vLLMHttpServer pid=2) (Worker pid=3) ERROR AssertionError: \
Attempted to load weight (torch.Size([128])) into parameter (torch.Size([0]))
(WorkerDict pid=1) INFO waiting
"""


def init_patch():
    return next(entry for entry in PATCHES if entry.target.endswith("PPOTrainer.init"))


@pytest.fixture
def manager(monkeypatch):
    """verl's manager around whatever `manager.hand_over` is, once a trainer has started; `start`
    starts one.
    """

    def start(trainer):
        trainer.started = True

    monkeypatch.setattr(PPOTrainer, "init", start)
    monkeypatch.setattr(
        CheckpointEngineManager,
        "update_weights",
        lambda self, global_steps=None: self.hand_over(global_steps),
    )
    init_patch().apply()
    return object.__new__(CheckpointEngineManager)


def start_trainer(tmp_path, sync_timeout_s):
    config = OmegaConf.create(
        {"seg": {"run_dir": str(tmp_path), "rollout": {"sync_timeout_s": sync_timeout_s}}}
    )
    trainer = SimpleNamespace(config=config, started=False)
    PPOTrainer.init(trainer)
    assert trainer.started


def test_an_engine_that_never_answers_stops_the_run_with_what_it_last_said(manager, tmp_path):
    start_trainer(tmp_path, 0.01)
    (tmp_path / "trainer.log").write_text(LOG)
    told = threading.Event()

    def wait_for_the_engine(global_steps):
        while not (tmp_path / STOP_FILE).exists() and not told.wait(0.001):
            pass

    manager.hand_over = wait_for_the_engine
    manager.update_weights(3)
    reason = (tmp_path / STOP_FILE).read_text()
    assert reason.startswith(
        "the weights of step 3 did not reach the rollout engine within"
        " seg.rollout.sync_timeout_s=0.01 s; "
    )
    assert reason.count("\n") == 1
    assert "Attempted to load weight" in reason


def test_a_hand_over_in_time_is_left_alone(manager, tmp_path):
    start_trainer(tmp_path, 600.0)
    others = set(threading.enumerate())
    manager.hand_over = lambda global_steps: {"sync/bytes": global_steps}
    assert manager.update_weights(5) == {"sync/bytes": 5}
    assert manager.update_weights(global_steps=6) == {"sync/bytes": 6}
    for thread in set(threading.enumerate()) - others:
        thread.join(60)
        assert not thread.is_alive()
    assert not (tmp_path / STOP_FILE).exists()


def test_an_error_of_the_hand_over_passes_through(manager, tmp_path):
    start_trainer(tmp_path, 600.0)

    def fail(global_steps):
        raise ConnectionError("the worker has gone")

    manager.hand_over = fail
    with pytest.raises(ConnectionError, match="the worker has gone"):
        manager.update_weights(1)


def test_installing_twice_changes_nothing(manager):
    wrapped = PPOTrainer.init
    init_patch().apply()
    assert PPOTrainer.init is wrapped
