"""One configuration run three times: undisturbed, ended in six ways and taken up again each time,
and on two training processes (gloo) with two rollout servers. All three learn the same, although
the recipe extends the model, has a loss of its own, and completes rewards after the rollout.
"""

import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
from safetensors.torch import load_file

from seg_research.training.launch.learning_curve import learning_curve

pytestmark = [pytest.mark.slow, pytest.mark.verl]

STEPS, EPISODES = 3, 4
SAME = {
    # With an eps this large Adam's first step is the gradient times the rate: otherwise the sign
    # of gradients that are next to 0 would decide, and ranks could not be compared.
    "+actor_rollout_ref.actor.optim.override_optimizer_config.eps": 100.0,
    "actor_rollout_ref.actor.optim.lr": 1000.0,
    "actor_rollout_ref.actor.optim.weight_decay": 0.0,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.rollout.temperature": 1.0,
    # A KL term needs a reference model beside the policy.
    "actor_rollout_ref.actor.use_kl_loss": "true",
    "actor_rollout_ref.actor.kl_loss_coef": 0.01,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "trainer.save_freq": 1,
    "trainer.max_actor_ckpt_to_keep": STEPS,
    "trainer.total_training_steps": STEPS,
    "seg.episode.recipe": "hooked_recipe:HookedRecipe",
}
RECIPE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
"""Where processes find the recipe."""
ADDED = {"offsets.values"}
"""Weights that the recipe adds."""
TWO = {"trainer.n_gpus_per_node": 2, "ray_kwargs.ray_init.num_gpus": 2}
KNOWN = (
    # verl, where libnuma is not installed; single-socket machines lose nothing
    "Failed to set NUMA affinity",
)


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    Attributes:
        code: exit code of the command.
        told: its last words.
        left_behind: commands of processes that stay.
        saved: number of the last whole checkpoint.
        logged: step of each episode that this attempt logged.
    """

    code: int
    told: list[str]
    left_behind: list[str]
    saved: int
    logged: list[int]


def last_checkpoint(run) -> int:
    """Return the number of the last whole checkpoint; 0 if there is none."""
    tracker = run.folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(tracker.read_text() or 0) if tracker.is_file() else 0


def disturb(run, act, *, saved: int) -> Ending:
    """Start the run, wait until an episode has ended in the step behind the last checkpoint, the
    one with the number `saved` or later, do something to it and wait for its end.
    """
    before = len(run.records())

    def logged() -> list[int]:
        return [record["global_step"] for record in run.records()[before:]]

    run.start()
    run.wait_until(lambda: last_checkpoint(run) >= saved and last_checkpoint(run) + 1 in logged())
    act(run)
    code, left = run.finish(600), run.left_behind()
    return Ending(code, run.told, left, last_checkpoint(run), logged())


KILLED = {
    "AgentLoopWorker": "a process that runs episodes has died|ActorDiedError",
    "TransformersServer": "ActorDiedError|ActorUnavailableError|has died",
    "WorkerDict": "ActorDiedError|has died",
}
"""Actors, and what is said of their death."""


@pytest.fixture(scope="module")
def own_search(mini):
    """A search server that the launcher starts, and has to end."""
    return {
        "search": "local",
        "seg.search.url": "null",
        "seg.search.text": mini.text,
        "seg.search.images": mini.images,
    }


@pytest.fixture(scope="module")
def undisturbed(new_run, own_search):
    run = new_run(SAME | own_search, RECIPE)
    run.complete()
    return run


@pytest.fixture(scope="module")
def pair(new_run):
    run = new_run(SAME | TWO | {"trainer.total_training_steps": 2}, RECIPE)
    run.complete()
    return run


@pytest.fixture(scope="module")
def disturbed(new_run, own_search):
    """A finished run, and how its earlier attempts ended."""
    run, endings = new_run(SAME | own_search, RECIPE), {}

    def kill(title: str):
        return lambda run: run.worker(title).kill()

    endings["AgentLoopWorker"] = disturb(run, kill("AgentLoopWorker"), saved=0)
    endings["TransformersServer"] = disturb(run, kill("TransformersServer"), saved=0)
    endings["Ctrl-C"] = disturb(run, lambda run: run.process.send_signal(signal.SIGINT), saved=0)
    endings["launcher"] = disturb(run, lambda run: run.process.kill(), saved=1)
    endings["WorkerDict"] = disturb(run, kill("WorkerDict"), saved=1)
    endings["power"] = disturb(run, lambda run: run.kill_everything(), saved=1)
    assert not (run.folder / "checkpoints" / f"global_step_{endings['power'].saved + 1}").exists()
    run.complete()
    return run, endings


def test_a_run_that_comes_to_its_end_is_silent_and_leaves_nothing_behind(undisturbed):
    assert undisturbed.left_behind() == []
    assert undisturbed.told == []
    assert (undisturbed.folder / "policy" / "model.safetensors").is_file()
    assert "Traceback" not in undisturbed.log
    warned = [
        line for line in undisturbed.log.splitlines() if re.search(r"\w*Warning:|Invalid -W", line)
    ]
    assert [line for line in warned if not any(known in line for known in KNOWN)] == []


@pytest.mark.parametrize(
    "ending", ["AgentLoopWorker", "TransformersServer", "Ctrl-C", "WorkerDict", "launcher"]
)
def test_no_ending_leaves_a_process_behind_or_loses_what_was_written(disturbed, ending):
    _run, endings = disturbed
    assert endings[ending].left_behind == []
    assert endings[ending].logged


@pytest.mark.parametrize("title", KILLED)
def test_a_worker_that_is_killed_ends_the_run_with_one_line(disturbed, title):
    ending = disturbed[1][title]
    assert ending.code in (1, 2)
    (line,) = ending.told
    assert re.search(KILLED[title], line), line


def test_ctrl_c_is_not_a_failure(disturbed):
    ending = disturbed[1]["Ctrl-C"]
    assert ending.code == 130
    assert ending.told == [
        "seg-research: stopped; what was written is kept, run the same command again to go on"
    ]


def test_a_run_goes_on_from_its_last_checkpoint(disturbed):
    run, endings = disturbed
    saved = [ending.saved for ending in endings.values()]
    assert saved == sorted(saved), "no checkpoint was lost"
    assert 1 <= saved[-1] < STEPS
    first = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first["step"] == saved[-1] + 1, "went on, did not begin anew"
    assert last_checkpoint(run) == STEPS
    assert (run.folder / "policy" / "model.safetensors").is_file()


def test_the_learning_curve_of_many_attempts_shows_each_step_once(disturbed):
    run, _endings = disturbed
    curve = learning_curve(run.folder)
    assert [(row["step"], row["episodes"]) for row in curve] == [
        (step, EPISODES) for step in range(1, STEPS + 1)
    ]
    assert (run.folder / "metrics.0.jsonl").is_file(), "the metrics of an earlier attempt"


def episodes(run) -> dict[tuple[int, str, str, int], dict[str, Any]]:
    """Episodes by step, prompt and rollout; of an interrupted step the later attempt counts."""
    return {(r["global_step"], r["uid"], r["id"], r["sample_idx"]): r for r in run.records()}


def test_the_next_batches_are_those_of_the_undisturbed_run(undisturbed, disturbed):
    run, _endings = disturbed
    assert sorted(episodes(undisturbed)) == sorted(episodes(run))
    for step in range(1, STEPS + 1):
        assert len({uid for s, uid, _, _ in episodes(run) if s == step}) == 2


def test_every_token_was_sampled_as_it_would_have_been(undisturbed, disturbed):
    theirs = episodes(disturbed[0])
    for key, record in episodes(undisturbed).items():
        assert record["tokens"] == theirs[key]["tokens"], key
        assert record["score"] == theirs[key]["score"]
    groups: dict[tuple[int, str], set[tuple[int, ...]]] = {}
    for record in theirs.values():
        rollouts = groups.setdefault((record["global_step"], record["id"]), set())
        rollouts.add(tuple(record["tokens"]["response_ids"]))
    assert any(len(rollouts) > 1 for rollouts in groups.values()), "each rollout has its own seed"


def test_the_final_weights_are_equal_to_the_last_bit(undisturbed, disturbed, talkative_model):
    run, _endings = disturbed
    folders = (talkative_model, undisturbed.folder / "policy", run.folder / "policy")
    before, one, other = (load_file(folder / "model.safetensors") for folder in folders)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert not all(one[name].equal(before[name]) for name in before), "something was learned"
    norms = [r.metrics()[-1]["actor/grad_norm"] for r in (undisturbed, run)]
    assert norms[0] == norms[1] > 0


def actor(run, step: int) -> Path:
    return run.folder / "checkpoints" / f"global_step_{step}" / "actor"


def test_two_ranks_are_given_the_same_first_batch_to_the_last_token(undisturbed, pair):
    one, two = (
        {
            (r["uid"], r["id"], r["sample_idx"]): r["tokens"]["response_ids"]
            for r in run.records()
            if r["global_step"] == 1
        }
        for run in (undisturbed, pair)
    )
    assert len(one) == EPISODES
    assert one == two


def test_one_step_of_two_ranks_is_one_step_of_one(undisturbed, pair, talkative_model):
    before = load_file(talkative_model / "model.safetensors")
    one, two = (
        load_file(actor(run, 1) / "huggingface" / "model.safetensors")
        for run in (undisturbed, pair)
    )
    assert one.keys() == two.keys() == before.keys() | ADDED
    moved = max((one[name] - before[name]).abs().max() for name in before)
    apart = max((one[name] - two[name]).abs().max() for name in one)
    assert moved > 1e-4
    assert apart <= 1e-3 * moved + 1e-7, "fp32: two halves of a sum, added in another order"
    norms = [run.metrics()[0]["actor/grad_norm"] for run in (undisturbed, pair)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


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


def test_the_policy_starts_at_the_reference_and_leaves_it(undisturbed, pair):
    for run in (undisturbed, pair):
        first, second, *_ = run.metrics()
        assert abs(first["actor/kl_loss"]) < 1e-6
        assert first["actor/grad_norm"] > 0
        assert second["actor/kl_loss"] > 1e-5
        assert second["actor/kl_coef"] == 0.01


def offsets_after(steps: int) -> list[float]:
    """Compute what the recipe's loss, 0.01 of the squared distance from 1, makes of an offset with
    Adam's momentum and this large an eps; the value before each step, and the last one.
    """
    values, momentum = [0.0], 0.0
    for step in range(1, steps + 1):
        momentum = 0.9 * momentum + 0.1 * 0.02 * (values[-1] - 1)
        values.append(values[-1] - 1000 / 100 * momentum / (1 - 0.9**step))
    return values


def test_what_the_recipe_added_was_trained_by_its_loss_in_every_run(undisturbed, disturbed, pair):
    (name,) = ADDED
    for run in (undisturbed, disturbed[0], pair):
        *before, after = offsets_after(2 if run is pair else STEPS)
        found = load_file(run.folder / "policy" / "model.safetensors")[name]
        assert found.tolist() == pytest.approx([after] * 2, rel=1e-3)
        losses = [step["actor/hooked/loss"] for step in run.metrics()]
        expected = [0.02 * (1 - value) ** 2 for value in before]
        assert losses == pytest.approx(expected[-len(losses) :], rel=1e-3)


def test_rewards_that_the_recipe_completes_are_those_that_are_trained_on(undisturbed, pair):
    for run in (undisturbed, pair):
        for number, step in enumerate(run.metrics(), 1):
            scores = [r["score"] for r in run.records() if r["global_step"] == number]
            assert step["seg/mean/brevity"] > 0
            assert step["critic/score/mean"] == pytest.approx(
                sum(scores) / len(scores) + step["seg/mean/brevity"], abs=1e-5
            )
