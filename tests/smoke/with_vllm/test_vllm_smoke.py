"""verl's own vLLM server, on a CPU, under our agent loop: two real steps; and what happens when new
weights do not arrive.
"""

from math import sqrt

import pytest

from seg_research.recipes.registry import build_recipe
from seg_research.testing.fakes import start_episode

pytest.importorskip("verl", reason="verl comes with the train extra")

import psutil

from seg_research.data.rows import read_samples
from seg_research.mini.tiny_settings import tiny_settings
from seg_research.policies.chat_tokens import ChatTokens
from seg_research.policies.engine import Request, Sampling, TransformersEngine
from seg_research.policies.processor import load_processor

pytestmark = [pytest.mark.slow, pytest.mark.verl, pytest.mark.vllm]

MAX_GAP = 1e-4
VLLM = {"rollout": "vllm", "actor_rollout_ref.rollout.full_determinism": "false"}


@pytest.fixture(scope="module")
def finished(new_run):
    """A run of two steps: the second one generates with weights that were synchronised."""
    run = new_run(
        VLLM
        | {
            # Groups of two may earn the same; this gives the first step a gradient whatever they
            # earn.
            "actor_rollout_ref.actor.entropy_coeff": 0.1,
            "actor_rollout_ref.actor.optim.lr": 2e-3,
            "trainer.save_freq": 1,
            # Half the square of the largest difference in log-probability, as a metric; the
            # threshold is never met, so nothing is left out.
            "algorithm.rollout_correction.rollout_rs": "token_k2",
            "algorithm.rollout_correction.rollout_rs_threshold": "1e9",
        }
    )
    run.complete()
    return run


def test_vllm_generated_every_turn_and_pictures_entered_in_the_middle(finished):
    assert "(vLLMHttpServer pid=" in finished.log
    records = finished.records()
    assert sorted(r["global_step"] for r in records) == [1] * 4 + [2] * 4
    assert not any(r["error"] for r in records)
    late = [
        turn
        for r in records
        for turn in r["turns"]
        if turn["role"] != "assistant" and turn["images"]
    ]
    assert late, "no observation brought a picture"


def test_rollout_and_actor_agree_on_every_log_probability(finished):
    for step in finished.metrics():
        assert sqrt(2 * step["rollout_corr/rollout_rs_token_k2_max"]) <= MAX_GAP
        assert step["seg/logprob_gap/max"] <= MAX_GAP


async def test_weights_that_had_not_arrived_would_have_shown(finished, one_video):
    """The second step generated with the weights of the first checkpoint; the model before it says
    something else, or ten gaps away.
    """
    base = finished.values["actor_rollout_ref.model.path"]
    processor, settings = load_processor(base), tiny_settings()
    recipe = build_recipe(settings)
    prompt = start_episode(recipe, read_samples(one_video)[0]).prompt
    ids, pictures = (
        ChatTokens(processor).opening(prompt),
        [image.image for message in prompt for image in message.images],
    )
    request = Request(ids, pictures, 8, Sampling(0.0))
    first_step = finished.folder / "checkpoints" / "global_step_1" / "actor" / "huggingface"
    (before,), (after,) = [
        await TransformersEngine.load(path, processor).run_batch([request])
        for path in (base, first_step)
    ]
    gap = max(abs(a - b) for a, b in zip(before.logprobs, after.logprobs, strict=False))
    assert before.token_ids != after.token_ids or gap > 10 * MAX_GAP


def test_a_sync_that_fails_ends_the_run_with_a_reason(new_run):
    """Without our worker extension vLLM repacks its weights, and verl's sender would wait for an
    engine that has given up.
    """
    run = new_run(
        VLLM
        | {
            "seg.rollout.sync_timeout_s": 20.0,
            "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls": "null",
        },
    )
    run.start()
    assert run.finish() != 0
    assert "did not reach the rollout engine within seg.rollout.sync_timeout_s=20 s" in run.said
    assert "Worker failed with error" in run.said, "the reason is the engine's"
    _gone, alive = psutil.wait_procs(run.members(), timeout=60)
    assert not alive
