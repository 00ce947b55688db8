"""The estimator inside verl: what it is given, what it returns, what the step logs."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from seg_common.errors import InvariantError, UsageError
from seg_research.rewards.grouping import PUBLISHED, GroupSettings, Scale, group_advantages
from seg_research.rewards.rubric import RewardBreakdown
from seg_research.training import trajectory as trajectory_module
from seg_research.training.launch.checks import check_against_verl
from seg_research.training.launch.config import GROUP_ESTIMATOR, compose_config, group_settings
from seg_research.training.learner.advantage import TrainingStep, step_metrics
from seg_research.training.patches import PATCHES
from seg_research.training.trajectory import FinishedTrajectory


def earned(outcome: float, process: float = 0.0) -> RewardBreakdown:
    paid = {"box_iou": outcome, "format": process}
    return RewardBreakdown(outcome + process, paid, outcome, answered=True)


GROUPS = {
    "a": [earned(1.0), earned(0.0), None, earned(0.0)],
    "b": [earned(1.0, 0.5), earned(1.0)],
    "pad0": [None],
}
ROWS = [
    ("a", GROUPS["a"][0]),
    ("b", GROUPS["b"][0]),
    *(("a", one) for one in GROUPS["a"][1:]),
    ("pad0", None),
    ("b", GROUPS["b"][1]),
]
"""Rows as verl's balancing leaves them: groups in any order."""
UIDS = np.array([uid for uid, _ in ROWS], dtype=object)
TRAJECTORIES = tuple(
    reward
    and FinishedTrajectory(
        reward,
        uid,
        truncated=row == 1,
        measures={"box_iou": reward.outcome, "guidance": None, "truncated": float(row == 1)},
        tool_calls={"look": 2} if row == 0 else {},
    )
    for row, (uid, reward) in enumerate(ROWS)
)
STEP = TrainingStep(TRAJECTORIES, GroupSettings())
MASK = torch.tensor([[1, 0, 1]] * len(ROWS))
REWARDS = torch.zeros(len(ROWS), 3)


def test_masked_rows_teach_nothing_and_still_count_in_the_baseline():
    cut = TrainingStep(
        tuple(
            one and dataclasses.replace(one, truncated=row == 0)
            for row, one in enumerate(TRAJECTORIES)
        ),
        GroupSettings(),
        mask_truncated=True,
    )
    found, _ = cut.estimate(REWARDS, MASK, UIDS)
    expected = group_advantages(GROUPS["a"], GroupSettings())
    np.testing.assert_allclose(found[UIDS == "a", 0], [0.0, *expected[1:]], rtol=1e-6)
    assert expected[0] > 0 > expected[1]


def test_each_group_gets_its_own_advantages_on_the_sampled_tokens():
    advantages, returns = STEP.estimate(REWARDS, MASK, UIDS)
    assert advantages is returns
    assert not advantages[:, 1].any()
    for uid, group in GROUPS.items():
        mine = advantages[uid == UIDS]
        np.testing.assert_allclose(mine[:, 0], group_advantages(group, GroupSettings()), rtol=1e-6)
        assert torch.equal(mine[:, 0], mine[:, 2])


def test_for_another_batch_it_refuses_to_guess():
    with pytest.raises(InvariantError, match=GROUP_ESTIMATOR):
        STEP.estimate(REWARDS[1:], MASK[1:], UIDS[1:])


def trainer(monkeypatch, estimator=GROUP_ESTIMATOR, *, mask_truncated=False):
    """Return verl's trainer with our wrapper, whose own computation is reduced to the call of the
    estimator.
    """
    monkeypatch.setattr(
        PPOTrainer, "_compute_advantage", lambda self, batch, metrics: self.compute(batch)
    )
    next(entry for entry in PATCHES if entry.target.endswith("._compute_advantage")).apply()
    # Padding repeats a real rollout's fields.
    rows = [
        {"extra_fields": (one or FinishedTrajectory(earned(1.0), "a")).to_extra_fields()}
        for one in TRAJECTORIES
    ]
    monkeypatch.setattr(
        trajectory_module.tq,
        "kv_batch_get",
        lambda keys, partition_id, select_fields: list_of_dict_to_tensordict(rows),
    )

    def compute(batch):
        data = DataProto.from_dict(
            {"token_level_rewards": REWARDS.clone(), "response_mask": MASK}, {"uid": UIDS}
        )
        return compute_advantage(data, adv_estimator=estimator).batch["advantages"]

    groups = {**dataclasses.asdict(GroupSettings()), "scale": "none"}
    config = {
        "seg": {"groups": groups, "overlong": {"mask_truncated": mask_truncated}},
        "algorithm": {"adv_estimator": estimator},
        "actor_rollout_ref": {"rollout": {"n": 4}},
    }
    return SimpleNamespace(config=OmegaConf.create(config), compute=compute)


BATCH = SimpleNamespace(
    keys=[f"k{row}" for row in range(len(ROWS))],
    partition_id="train",
    tags=[{"is_padding": True} if one is None else {} for one in TRAJECTORIES],
)


def compute_step(given, metrics):
    return PPOTrainer._compute_advantage(given, BATCH, metrics)


def test_a_step_of_verl_reaches_the_estimator_with_what_its_rollouts_earned(monkeypatch):
    metrics: dict = {}
    found = compute_step(trainer(monkeypatch), metrics)
    np.testing.assert_allclose(
        found[UIDS == "a", 0], group_advantages(GROUPS["a"], GroupSettings(Scale.NONE)), rtol=1e-6
    )
    assert not found[UIDS == "pad0"].any()
    assert metrics["seg/mean/box_iou"] == pytest.approx(3 / 5)


def test_the_step_is_logged_whatever_the_estimator(monkeypatch):
    metrics: dict = {}
    compute_step(trainer(monkeypatch, "grpo"), metrics)
    assert metrics == {
        "seg/mean/box_iou": pytest.approx(0.6),
        "seg/mean/truncated": pytest.approx(0.2),
        "seg/mean/calls/look": pytest.approx(0.4),
        "seg/groups/equal_outcome": 0.5,
        "seg/groups/no_signal": 0,
        "seg/groups/incomplete": 1,
    }


@pytest.mark.parametrize("masks", [False, True])
def test_cut_episodes_are_masked_on_request(monkeypatch, masks):
    found = compute_step(trainer(monkeypatch, mask_truncated=masks), {})
    assert UIDS[1] == "b"
    assert bool(found[1].any()) is not masks
    assert found[6].any()


def test_metrics_are_means_over_what_ran_and_shares_of_groups():
    rows = [
        (1.0, "a", {"box_iou": 1.0, "guidance": None}),
        (0.0, "a", {"box_iou": 0.0, "guidance": 1.0}),
        (1.0, "b", {"box_iou": 1.0, "guidance": 0.0}),
    ]
    trajectories = [
        FinishedTrajectory(earned(outcome), group, measures=measures)
        for outcome, group, measures in rows
    ]
    assert step_metrics(TrainingStep((*trajectories, None), GroupSettings()), 2) == {
        "seg/mean/box_iou": pytest.approx(2 / 3),
        "seg/mean/guidance": 0.5,
        "seg/groups/equal_outcome": 0.5,
        "seg/groups/no_signal": 0.5,
        "seg/groups/incomplete": 0.5,
    }


@pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3])
def test_rounding_is_no_signal(reward):
    group = (FinishedTrajectory(earned(reward, reward / 3), "a"),) * 7
    for settings in (GroupSettings(), PUBLISHED):
        assert step_metrics(TrainingStep(group, settings), 7)["seg/groups/no_signal"] == 1


def test_the_published_variant_is_verl_s():
    rng = np.random.default_rng(0)
    grouped = [[earned(*rng.uniform(0, 1, 2)) for _ in range(size)] for size in (8, 4, 2, 1)]
    rows = [
        (f"group {i}", sum(one.paid.values())) for i, group in enumerate(grouped) for one in group
    ]
    rewards = torch.tensor([[0.0, reward] for _, reward in rows])
    uids = np.array([uid for uid, _ in rows], dtype=object)
    theirs, _ = core_algos.compute_grpo_outcome_advantage(rewards, torch.ones_like(rewards), uids)
    ours = np.concatenate([group_advantages(group, PUBLISHED) for group in grouped])
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), rtol=2e-4, atol=1e-5)


def composed(mini, *changes: str):
    given = [
        f"data.train_files={mini.parquet('train')}",
        f"data.val_files={mini.parquet('val')}",
        f"seg.search.text={mini.text}",
    ]
    return compose_config([*given, "actor_rollout_ref.model.path=model", *changes])


@pytest.mark.parametrize(
    ("changes", "estimator"),
    [
        ([], GROUP_ESTIMATOR),
        (["seg.episode.rewards.mode=compat", "seg.episode.rewards.dense=false"], "grpo"),
        (["algorithm.adv_estimator=rloo"], "rloo"),
        (
            [
                "seg.episode.rewards.mode=compat",
                "seg.episode.rewards.dense=false",
                f"algorithm.adv_estimator={GROUP_ESTIMATOR}",
            ],
            GROUP_ESTIMATOR,
        ),
    ],
)
def test_the_estimator_follows_the_mode_unless_it_is_given(mini, changes, estimator):
    config = composed(mini, *changes)
    assert config.algorithm.adv_estimator == estimator
    check_against_verl(config)


def test_the_configured_groups_are_the_defaults_of_the_code(mini):
    assert group_settings(composed(mini)) == GroupSettings()
    assert group_settings(
        composed(mini, "seg.groups.scale=none", "seg.groups.per_term=true")
    ) == GroupSettings(Scale.NONE, per_term=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seg.groups.scale=big", "floor, none, published"),
        ("seg.groups.std_floor=0", "std_floor"),
        ("actor_rollout_ref.rollout.n=1", r"rollout\.n"),
        ("algorithm.use_kl_in_reward=true", "use_kl_loss"),
    ],
)
def test_what_would_go_wrong_silently_is_refused(mini, change, message):
    with pytest.raises(UsageError, match=message):
        check_against_verl(composed(mini, change))
