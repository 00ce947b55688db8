"""vLLM in this process against transformers: the same model must say the same, token by token, also
where pictures enter in the middle.
"""

import asyncio
import os

import pytest

from seg_research.recipes.registry import build_recipe
from seg_research.testing.fakes import start_episode

pytest.importorskip("verl", reason="verl comes with the train extra")

from PIL import Image

from seg_research.data.rows import read_samples
from seg_research.episode.run import run_episode
from seg_research.episode.transcript import FinishReason, ImageRef, Message, Text
from seg_research.mini.tiny_settings import tiny_settings
from seg_research.policies.chat_tokens import ChatTokens
from seg_research.policies.engine import Completion, Request, Sampling, TransformersEngine
from seg_research.policies.processor import IMAGE_TOKEN, VISION_TOKENS, load_processor
from seg_research.policies.transformers_policy import LocalPolicy
from seg_research.policies.turn_barrier import TurnBarrier
from seg_research.search.client import SearchClient

pytestmark = [pytest.mark.slow, pytest.mark.vllm]

MAX_GAP = 1e-3


class VllmEngine:
    """The part of `TransformersEngine` that conversations use, on `vllm.LLM`."""

    def __init__(self, folder):
        from vllm import LLM

        self.processor = load_processor(folder)
        self.tokenizer = self.processor.tokenizer
        self._llm = LLM(
            model=str(folder),
            dtype="float32",
            enforce_eager=True,
            max_model_len=2048,
            max_num_seqs=16,
            kv_cache_memory_bytes=1 << 28,
            logprobs_mode="raw_logprobs",
            limit_mm_per_prompt={"image": 16, "video": 0},
            mm_processor_cache_gb=0,
        )

    async def run_batch(self, requests):
        from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens
        from vllm import SamplingParams

        banned = {self.tokenizer.convert_tokens_to_ids(token): -100.0 for token in VISION_TOKENS}
        # vLLM expands each placeholder, so that it wants one for each picture; verl's servers do
        # the same.
        prompts = [
            {
                "prompt_token_ids": list(
                    qwen2_5_vl_dedup_image_tokens(list(r.prompt_ids), self.processor)
                ),
                "multi_modal_data": {"image": list(r.images)} if r.images else {},
            }
            for r in requests
        ]
        sampling = [
            SamplingParams(
                temperature=r.sampling.temperature,
                max_tokens=r.max_tokens,
                logprobs=0,
                logit_bias=banned,
                stop=list(r.sampling.stop_strings),
                include_stop_str_in_output=True,
            )
            for r in requests
        ]
        return [
            _completion(answer.outputs[0])
            for answer in self._llm.generate(prompts, sampling, use_tqdm=False)
        ]


def _completion(output) -> Completion:
    logprobs = tuple(
        step[token].logprob for step, token in zip(output.logprobs, output.token_ids, strict=True)
    )
    return Completion(tuple(output.token_ids), logprobs, FinishReason(output.finish_reason))


@pytest.fixture(scope="module")
def in_process():
    """Keep vLLM's engine in this process, and undo what it does to the environment and to the cores
    this process may use.
    """
    environment, cores = dict(os.environ), os.sched_getaffinity(0)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    yield
    os.environ.clear()
    os.environ.update(environment)
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def engines(talkative_model, in_process):
    ours = TransformersEngine.load(talkative_model, load_processor(talkative_model))
    return ours, VllmEngine(talkative_model)


def gap(ours, theirs) -> float:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


async def test_they_say_the_same_about_none_one_and_three_images(engines):
    ours, theirs = engines
    chat = ChatTokens(ours.processor)

    def request(*pictures) -> Request:
        parts = [
            Text("who wears the emblem of the harbour town?"),
            *(ImageRef(p, "x") for p in pictures),
            Text(" where is it?"),
        ]
        return Request(
            chat.opening((Message("user", tuple(parts)),)),
            list(pictures),
            40,
            Sampling(temperature=0.0),
        )

    colours = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green", "blue")]
    requests = [request(), request(colours[0]), request(*colours)]
    for expected, found in zip(
        await ours.run_batch(requests), await theirs.run_batch(requests), strict=True
    ):
        assert found.token_ids == expected.token_ids
        assert found.finish is expected.finish
        assert gap(found.logprobs, expected.logprobs) <= MAX_GAP


def play(engine, samples, search_url):
    """Play one greedy episode for each sample, all at once, and return their transcripts."""
    settings = tiny_settings()
    recipe = build_recipe(settings)
    chat = ChatTokens(engine.processor)
    policy = LocalPolicy(
        chat,
        TurnBarrier(engine, lambda turn: None),
        settings.limits,
        Sampling(0.0, stop_strings=recipe.grammar.stop_strings),
        512,
    )

    async def run():
        async with SearchClient(search_url) as client:
            tools = recipe.connect(client)
            conversations = [policy.converse(sample, 0) for sample in samples]
            episodes = [start_episode(recipe, sample) for sample in samples]
            return await asyncio.gather(
                *(run_episode(e, c, tools) for e, c in zip(episodes, conversations, strict=True))
            )

    return asyncio.run(run())


def test_whole_episodes_are_the_same(engines, one_video, search_url):
    samples = read_samples(one_video)
    ours, theirs = (play(engine, samples, search_url) for engine in engines)
    image_id = engines[0].tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    for expected, found in zip(ours, theirs, strict=True):
        assert found.tokens.prompt_ids == expected.tokens.prompt_ids
        assert found.tokens.response_ids == expected.tokens.response_ids
        assert found.tokens.response_mask == expected.tokens.response_mask
        assert found.stop is expected.stop
        assert gap(found.tokens.response_logprobs, expected.tokens.response_logprobs) <= MAX_GAP
    # The comparison is worth something only where a turn follows a picture that came after the
    # opening.
    late = [t for t in theirs if image_id in t.tokens.response_ids[: _last_sampled(t.tokens)]]
    assert late, "no picture entered before the last turn"


def _last_sampled(tokens) -> int:
    return max(i for i, mask in enumerate(tokens.response_mask) if mask)
