"""What a trainer step measures besides its advantages, and how a guard ends the run."""

from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from seg_common.errors import UsageError
from seg_research.training.learner import step_checks
from seg_research.training.learner.step_checks import gap_metrics, turn_gaps
from seg_research.training.patches import PATCHES
from seg_research.training.run_contract import STOP_FILE

TRAINER = torch.tensor([-1.0, -2.0, 9.0, -3.0, -1.0, 9.0, -4.0])
ROLLOUT = torch.tensor([-1.5, -2.0, 0.0, -3.0, -2.0, 0.0, -4.25])
MASK = torch.tensor([1, 1, 0, 1, 1, 0, 1])


def test_gaps_are_told_turn_by_turn_and_leave_out_what_the_host_inserted():
    assert [gaps.tolist() for gaps in turn_gaps(TRAINER, ROLLOUT, MASK)] == [
        [0.5, 0],
        [0, 1.0],
        [0.25],
    ]
    assert turn_gaps(TRAINER, ROLLOUT, torch.zeros(7)) == []


def test_the_means_are_over_tokens_not_over_rollouts():
    short = turn_gaps(torch.tensor([-1.0]), torch.tensor([-3.0]), torch.tensor([1]))
    found = gap_metrics([turn_gaps(TRAINER, ROLLOUT, MASK), short, []])
    assert {
        name.removeprefix("seg/logprob_gap/"): round(value, 6) for name, value in found.items()
    } == {
        "turn_1": round(2.5 / 3, 6),
        "turn_2": 0.5,
        "turn_3": 0.25,
        "turn_1_max": 2.0,
        "turn_2_max": 1.0,
        "turn_3_max": 0.25,
        "mean": 0.625,
        "max": 2.0,
    }
    assert gap_metrics([[]]) == {}


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    """verl's trainer with our wrappers, around methods that do nothing."""
    for name in ("_compute_old_log_prob", "_update_actor"):
        monkeypatch.setattr(PPOTrainer, name, lambda self, batch, metrics: batch)
        next(entry for entry in PATCHES if entry.target.endswith(f".{name}")).apply()
    rows = {
        name: torch.nested.as_nested_tensor([column, column[:2]], layout=torch.jagged)
        for name, column in (
            ("old_log_probs", TRAINER),
            ("rollout_log_probs", ROLLOUT),
            ("response_mask", MASK),
        )
    }
    monkeypatch.setattr(
        step_checks.tq,
        "kv_batch_get",
        lambda keys, partition_id, select_fields: {n: rows[n] for n in select_fields},
    )
    config = {
        "algorithm": {"rollout_correction": {"bypass_mode": False}},
        "actor_rollout_ref": {"rollout": {"calculate_log_probs": True}},
        "seg": {"run_dir": str(tmp_path), "guards": {"patience": 2}},
    }
    return SimpleNamespace(config=OmegaConf.create(config), global_steps=7)


BATCH = SimpleNamespace(keys=["k", "l"], partition_id="train")


def test_a_step_logs_the_gaps(trainer):
    metrics: dict = {}
    assert PPOTrainer._compute_old_log_prob(trainer, BATCH, metrics=metrics) is BATCH
    assert metrics["seg/logprob_gap/max"] == 1
    assert metrics["seg/logprob_gap/turn_1"] == 0.25


@pytest.mark.parametrize(
    "change",
    [
        "algorithm.rollout_correction.bypass_mode=true",
        "actor_rollout_ref.rollout.calculate_log_probs=false",
    ],
)
def test_with_one_kind_of_log_probabilities_there_is_no_gap(trainer, change):
    trainer.config.merge_with_dotlist([change])
    metrics: dict = {}
    PPOTrainer._compute_old_log_prob(trainer, BATCH, metrics=metrics)
    assert metrics == {}


def test_a_guard_ends_the_run_with_its_reason(trainer, tmp_path):
    PPOTrainer._update_actor(trainer, BATCH, metrics={"seg/groups/no_signal": 1.0})
    assert not (tmp_path / STOP_FILE).exists()
    with pytest.raises(UsageError, match="step 7: in no group any rollout earned more"):
        PPOTrainer._update_actor(trainer, BATCH, metrics={"seg/groups/no_signal": 1.0})
    assert "step 7" in (tmp_path / STOP_FILE).read_text()
