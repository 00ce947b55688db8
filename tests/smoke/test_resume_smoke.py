"""A run that was killed in the middle of a step ends with the same weights, to the last bit, as one
that was left alone.
"""

import json

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.verl]

STEPS = {"trainer.total_training_steps": 3, "trainer.save_freq": 1}


def episodes(run) -> dict[tuple[int, str, str, int], dict]:
    """Episodes by step, prompt and rollout; of an interrupted step the later attempt counts."""
    return {(r["global_step"], r["uid"], r["id"], r["sample_idx"]): r for r in run.records()}


@pytest.fixture(scope="module")
def undisturbed(new_run):
    run = new_run(STEPS)
    run.complete()
    return run


@pytest.fixture(scope="module")
def killed(new_run):
    """Killed in step 2, after some episodes of it had ended, and started again."""
    run = new_run(STEPS)
    tracker = run.folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    run.start()
    run.wait_until(lambda: tracker.is_file() and any(r["global_step"] == 2 for r in run.records()))
    run.kill_everything()
    assert tracker.read_text() == "1"
    assert not (run.folder / "checkpoints" / "global_step_2").exists()
    run.complete()
    assert json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])["step"] == 2, (
        "went on, did not begin anew"
    )
    return run


def test_the_next_batches_are_those_of_the_undisturbed_run(undisturbed, killed):
    assert sorted(episodes(undisturbed)) == sorted(episodes(killed))
    for step in (1, 2, 3):
        assert len({uid for s, uid, _, _ in episodes(killed) if s == step}) == 2


def test_every_token_was_sampled_as_it_would_have_been(undisturbed, killed):
    theirs = episodes(killed)
    for key, record in episodes(undisturbed).items():
        assert record["tokens"] == theirs[key]["tokens"], key
        assert record["score"] == theirs[key]["score"]
    groups: dict[tuple[int, str], set[tuple[int, ...]]] = {}
    for record in theirs.values():
        groups.setdefault((record["global_step"], record["id"]), set()).add(
            tuple(record["tokens"]["response_ids"])
        )
    assert any(len(rollouts) > 1 for rollouts in groups.values()), (
        "the rollouts of a prompt have seeds of their own"
    )


def test_the_final_weights_are_equal_to_the_last_bit(undisturbed, killed, talkative_model):
    before, one, other = (
        load_file(folder / "model.safetensors")
        for folder in (talkative_model, undisturbed.folder / "policy", killed.folder / "policy")
    )
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert not all(one[name].equal(before[name]) for name in one), "something was learned"
    assert (
        killed.metrics()[-1]["actor/grad_norm"] == undisturbed.metrics()[-1]["actor/grad_norm"] > 0
    )
