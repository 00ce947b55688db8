"""Two training processes (gloo) and two rollout servers learn what one of each learns."""

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.verl]

# With an eps this large Adam's first step is the gradient times the rate: otherwise the sign of
# gradients that are next to 0 would decide.
LINEAR = {
    "+actor_rollout_ref.actor.optim.override_optimizer_config.eps": 100.0,
    "actor_rollout_ref.actor.optim.lr": 1000.0,
    "actor_rollout_ref.actor.optim.weight_decay": 0.0,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 1,
    "trainer.save_freq": 1,
}
TWO = {"trainer.n_gpus_per_node": 2, "ray_kwargs.ray_init.num_gpus": 2}


@pytest.fixture(scope="module")
def alone(new_run):
    run = new_run({**LINEAR, "trainer.total_training_steps": 1})
    run.complete()
    return run


@pytest.fixture(scope="module")
def pair(new_run):
    run = new_run({**LINEAR, **TWO})
    run.complete()
    return run


def actor(run, step: int):
    return run.folder / "checkpoints" / f"global_step_{step}" / "actor"


def test_the_first_batch_is_the_same_to_the_last_token(alone, pair):
    one, two = (
        {
            (r["uid"], r["id"], r["sample_idx"]): r["tokens"]["response_ids"]
            for r in run.records()
            if r["global_step"] == 1
        }
        for run in (alone, pair)
    )
    assert len(one) == 4
    assert one == two


def test_one_step_of_two_ranks_is_one_step_of_one(alone, pair, talkative_model):
    before = load_file(talkative_model / "model.safetensors")
    one, two = (
        load_file(actor(run, 1) / "huggingface" / "model.safetensors") for run in (alone, pair)
    )
    assert one.keys() == two.keys() == before.keys()
    moved = max((one[name] - before[name]).abs().max() for name in one)
    apart = max((one[name] - two[name]).abs().max() for name in one)
    assert moved > 1e-4
    assert apart <= 1e-3 * moved + 1e-7, "fp32: two halves of a sum, added in another order"
    assert alone.metrics()[0]["actor/grad_norm"] == pytest.approx(
        pair.metrics()[0]["actor/grad_norm"], rel=1e-4
    )


def test_the_ranks_hold_halves_of_what_was_exported(pair):
    exported = load_file(actor(pair, 2) / "huggingface" / "model.safetensors")
    ranks = [
        torch.load(actor(pair, 2) / f"model_world_size_2_rank_{rank}.pt", weights_only=False)
        for rank in (0, 1)
    ]
    assert ranks[0].keys() == ranks[1].keys() >= exported.keys()
    for name, whole in exported.items():
        halves = [rank[name].to_local() for rank in ranks]
        assert torch.cat(halves).equal(whole), name
        assert len(halves[0]) < len(whole), name


def test_both_servers_were_given_the_new_weights(pair):
    assert pair.metrics()[1]["training/rollout_probs_diff_max"] <= 1e-3
    assert pair.metrics()[1]["actor/grad_norm"] > 0
