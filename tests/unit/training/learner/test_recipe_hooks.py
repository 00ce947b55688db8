"""A recipe changes model, loss and rewards in verl's processes, and none if it does not ask."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine_workers import ActorRolloutRefWorker

from seg_common.errors import InvariantError, UsageError
from seg_research.recipes.hooks import TrainerHooks
from seg_research.rewards.rubric import RewardBreakdown
from seg_research.training.learner.recipe_hooks import VARIABLE, after_rollout, put_into_config
from seg_research.training.patches import PATCHES, Process, apply_patches
from seg_research.training.trajectory import FinishedTrajectory, from_extra_fields

SMOKE = Path(__file__).parents[3] / "smoke"


@pytest.fixture
def hooks(monkeypatch):
    """A process of a run whose recipe has all hooks."""
    monkeypatch.syspath_prepend(str(SMOKE))
    import hooked_recipe

    config = OmegaConf.create(
        {
            "algorithm": {"filter_groups": {"enable": False}},
            "ray_kwargs": {"ray_init": {"num_cpus": 1}},
            "seg": {"episode": {"recipe": "hooked_recipe:HookedRecipe"}},
        }
    )
    put_into_config(config, hooked_recipe.HOOKS)
    monkeypatch.setenv(VARIABLE, config.ray_kwargs.ray_init.runtime_env.env_vars[VARIABLE])
    return config


def test_a_recipe_without_hooks_leaves_configuration_and_verl_alone(monkeypatch):
    config = OmegaConf.create({"ray_kwargs": {}})
    put_into_config(config, TrainerHooks())
    assert config == {"ray_kwargs": {}}
    monkeypatch.delenv(VARIABLE, raising=False)
    before = FSDPEngineWithLMHead._build_optimizer, ActorRolloutRefWorker.init_model
    apply_patches(Process.REINFORCEMENT)
    assert before == (FSDPEngineWithLMHead._build_optimizer, ActorRolloutRefWorker.init_model)


@pytest.mark.usefixtures("hooks")
def test_every_hook_that_is_set_needs_its_patches():
    wanted = {entry.target.rpartition(".")[2] for entry in PATCHES if entry.applies()}
    assert {"_build_optimizer", "get_per_tensor_param", "init_model"} <= wanted


@pytest.mark.usefixtures("hooks")
def test_what_the_model_hook_adds_is_optimised_and_not_sent_to_the_rollout_engine(monkeypatch):
    import hooked_recipe

    def add(module, engine):
        module.added = torch.nn.Linear(1, 1)

    def parameters(engine, module):
        return [name for name, _ in module.named_parameters()]

    def weights(engine, layered_summon=False):
        return iter(engine.module.state_dict().items()), "peft"

    monkeypatch.setattr(hooked_recipe, "add_offsets", add)
    monkeypatch.setattr(FSDPEngineWithLMHead, "_build_optimizer", parameters)
    monkeypatch.setattr(FSDPEngineWithLMHead, "get_per_tensor_param", weights)
    for entry in PATCHES:
        if entry.target.endswith(("._build_optimizer", ".get_per_tensor_param")):
            entry.apply()
    engine = object.__new__(FSDPEngineWithLMHead)
    engine.module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    optimised = engine._build_optimizer(engine.module)
    assert optimised == ["0.weight", "0.bias", "added.weight", "added.bias"]
    sent, peft = engine.get_per_tensor_param(layered_summon=True)
    assert ([name for name, _ in sent], peft) == (["0.weight", "0.bias"], "peft")


@pytest.mark.usefixtures("hooks")
def test_the_loss_hook_takes_the_place_of_verls_with_its_configuration(monkeypatch):
    import hooked_recipe

    def loss(config, model_output, data, dp_group=None):
        return config, model_output, data

    monkeypatch.setattr(hooked_recipe, "loss_with_offsets", loss)
    monkeypatch.setattr(ActorRolloutRefWorker, "init_model", lambda worker: "made")
    next(entry for entry in PATCHES if entry.target.endswith(".init_model")).apply()
    worker = object.__new__(ActorRolloutRefWorker)
    worker.actor = SimpleNamespace(set_loss_fn=lambda found: setattr(worker, "found", found))
    worker.loss_fn = SimpleNamespace(keywords={"config": "actor configuration"})
    assert worker.init_model() == "made"
    assert worker.found(model_output="output", data="data") == (
        "actor configuration",
        "output",
        "data",
    )
    del worker.actor  # a reference model of its own
    assert worker.init_model() == "made"


def trajectory(total: float, turns: int) -> FinishedTrajectory:
    reward = RewardBreakdown(total, {"hit": total}, total, answered=True)
    return FinishedTrajectory(reward, "g", evidence={"num_turns": turns})


@pytest.fixture
def queue(monkeypatch):
    """verl's queue with two trajectories and a row of padding, which repeats the first."""
    rows = [trajectory(1.0, 1), trajectory(0.0, 5), trajectory(1.0, 1)]
    scores = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.0])]
    stored = {
        "extra_fields": [{**one.to_extra_fields(), "other": 1} for one in rows],
        "rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged),
    }
    monkeypatch.setattr(
        tq,
        "kv_batch_get",
        lambda keys, partition_id, select_fields: {name: stored[name] for name in select_fields},
    )
    monkeypatch.setattr(
        tq, "kv_batch_put", lambda keys, partition_id, fields: stored.update(fields.items())
    )
    return stored


BATCH = SimpleNamespace(
    keys=["g_0_0", "g_1_0", "pad"], partition_id="train", tags=[{}, {}, {"is_padding": True}]
)


@pytest.mark.usefixtures("hooks")
def test_rewards_that_are_completed_after_the_rollout_reach_the_queue(queue):
    after_rollout(None, BATCH, {})
    scores = [row.tolist() for row in queue["rm_scores"].unbind()]
    assert scores == [[0.0, 1.25], [0.0, 0.0, pytest.approx(0.05)], [0.0]]
    extras = [getattr(extra, "data", extra) for extra in queue["extra_fields"]]
    first, second, padding = map(from_extra_fields, extras)
    assert first.reward.paid == {"hit": 1.0, "brevity": 0.25}
    assert second.reward.total == pytest.approx(0.05)
    assert second.measures["brevity"] == pytest.approx(0.05)
    assert padding == trajectory(1.0, 1)
    assert extras[0]["other"] == 1
    assert extras[0]["reward_extra_info"] == {"brevity": 0.25}


@pytest.mark.usefixtures("hooks", "queue")
def test_a_pass_that_loses_a_trajectory_is_refused(monkeypatch):
    import hooked_recipe

    monkeypatch.setattr(hooked_recipe, "reward_brevity", lambda trainer, batch, given: given[:1])
    with pytest.raises(InvariantError, match="one trajectory for each"):
        after_rollout(None, BATCH, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "no_such_module:loss"}, "loss='no_such_module:loss'"),
        ({"model": "json"}, "package.module:function"),
    ],
)
def test_a_hook_that_python_does_not_find_is_named_before_the_run(hooks, given, message):
    with pytest.raises(UsageError, match=message):
        put_into_config(hooks, TrainerHooks(**given))


def test_a_function_that_is_not_there_is_named(hooks, monkeypatch):
    monkeypatch.setenv(VARIABLE, json.dumps({"after_rollout": "json:nothing"}))
    with pytest.raises(UsageError, match="json has no function nothing"):
        after_rollout(None, SimpleNamespace(keys=[], partition_id="train", tags=[]), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("algorithm.filter_groups.enable=true", r"filter_groups\.enable=false"),
        ("algorithm.rollout_correction.bypass_mode=true", "bypass_mode"),
    ],
)
def test_settings_under_which_a_pass_after_the_rollout_would_be_wrong_are_refused(
    hooks, change, message
):
    hooks.merge_with_dotlist([change])
    with pytest.raises(UsageError, match=message):
        put_into_config(hooks, TrainerHooks(after_rollout="json:loads"))
