"""Generation with the tiny model: tokens and log-probabilities are those of the model alone,
whatever the batch around a request.
"""

import asyncio

import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch
from PIL import Image

from seg_common.errors import InfraError
from seg_research.episode.transcript import FinishReason, ImageRef, Message, Text
from seg_research.policies.chat_tokens import ChatTokens
from seg_research.policies.engine import Request, Sampling, TransformersEngine
from seg_research.policies.processor import VISION_TOKENS

GREEDY = Sampling(temperature=0.0)


def picture(color) -> Image.Image:
    return Image.new("RGB", (64, 64), color)


@pytest.fixture(scope="module")
def requests(tiny_processor):
    """Prompts with no, one and three pictures, of different lengths."""
    chat = ChatTokens(tiny_processor)

    def request(text, *pictures, max_tokens=12, sampling=GREEDY):
        parts = [Text(text), *(ImageRef(p, "x") for p in pictures), Text(" where is it?")]
        return Request(
            chat.opening((Message("user", tuple(parts)),)), list(pictures), max_tokens, sampling
        )

    return [
        request("the emblem of a harbour town"),
        request("one", picture("red"), max_tokens=20),
        request(
            "a somewhat longer text about a target in a video",
            picture("red"),
            picture("green"),
            picture("blue"),
        ),
    ]


def ids(engine, text: str) -> list[int]:
    return engine.tokenizer.encode(text, add_special_tokens=False)


def logprobs_of(engine, request: Request, token_ids, temperature=1.0) -> torch.Tensor:
    """Score tokens in one plain pass, without cache, padding or company."""
    whole = torch.tensor([[*request.prompt_ids, *token_ids]])
    inputs = {"input_ids": whole}
    if request.images:
        features = engine.processor.image_processor(images=request.images, return_tensors="pt")
        image_id = engine.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        inputs |= {**features, "mm_token_type_ids": (whole == image_id).long()}
    with torch.no_grad():
        logits = engine.model(**inputs, use_cache=False).logits
    scores = torch.log_softmax(
        logits[0, len(request.prompt_ids) - 1 : -1].float() / temperature, dim=-1
    )
    return scores.gather(1, torch.tensor(token_ids)[:, None])[:, 0]


async def test_greedy_generation_repeats_itself(engine, requests):
    first = await engine.run_batch(requests)
    assert await engine.run_batch(requests) == first
    assert [len(c.token_ids) for c in first] == [12, 20, 12]
    assert all(c.finish is FinishReason.LENGTH for c in first)


async def test_company_in_a_batch_changes_no_token(engine, requests):
    together = await engine.run_batch(requests)
    for request, completion in zip(requests, together, strict=True):
        (alone,) = await engine.run_batch([request])
        assert completion.token_ids == alone.token_ids


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
async def test_logprobs_are_those_of_a_plain_forward_pass(engine, requests, temperature):
    torch.manual_seed(5)
    sampled = [
        Request(r.prompt_ids, r.images, r.max_tokens, Sampling(temperature, top_p=0.9))
        for r in requests
    ]
    for request, completion in zip(sampled, await engine.run_batch(sampled), strict=True):
        expected = logprobs_of(engine, request, completion.token_ids, temperature or 1.0)
        assert (expected - torch.tensor(completion.logprobs)).abs().max() < 1e-4


async def test_sampling_follows_the_seed(engine, requests):
    def sampled():
        return [Request(r.prompt_ids, r.images, r.max_tokens, Sampling(1.0)) for r in requests]

    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append([c.token_ids for c in await engine.run_batch(sampled())])
    assert results[0] == results[1]
    assert results[0] != results[2]


async def test_a_seed_of_its_own_makes_a_sample_independent_of_company_and_history(
    engine, requests
):
    seeded = [
        Request(r.prompt_ids, r.images, r.max_tokens, Sampling(1.0, top_p=0.95), seed)
        for seed, r in enumerate(requests)
    ]
    together = await engine.run_batch(seeded)
    for request, completion in zip(reversed(seeded), reversed(together), strict=True):
        (alone,) = await engine.run_batch([request])
        assert alone.token_ids == completion.token_ids
    twins = [Request(requests[0].prompt_ids, [], 12, Sampling(1.0), seed) for seed in range(20)]
    assert len({c.token_ids for c in await engine.run_batch(twins)}) > 1


async def test_samples_follow_the_distribution(engine, requests, forced):
    """Two tokens made equally likely, all others impossible: each comes about half the time, never
    another.
    """
    pair, (request, *_) = [50, 51], requests
    with forced(*[[pair]] * 200):
        many = await engine.run_batch(
            [Request(request.prompt_ids, [], 1, Sampling(1e6), seed) for seed in range(200)]
        )
    assert len({c.token_ids for c in many}) > 50, "hot: nearly all tokens are possible"
    with forced(*[[pair]] * 200):
        many = await engine.run_batch(
            [Request(request.prompt_ids, [], 1, Sampling(100.0), seed) for seed in range(200)]
        )
    counts = [sum(c.token_ids == (token,) for c in many) for token in pair]
    assert sum(counts) == 200
    assert 70 <= counts[0] <= 130


async def test_top_k_of_one_is_greedy(engine, requests):
    greedy = await engine.run_batch(requests)
    top_1 = await engine.run_batch(
        [Request(r.prompt_ids, r.images, r.max_tokens, Sampling(1.0, top_k=1)) for r in requests]
    )
    assert [c.token_ids for c in top_1] == [c.token_ids for c in greedy]


async def test_each_row_ends_at_its_own_end_of_turn(engine, requests, forced):
    end = engine.tokenizer.eos_token_id
    rows = [[50, 51, end, 52, 52, 52, 52], [50, 51, 52, 53, 54, end], [50] * 12]
    with forced(*rows):
        short, longer, cut = await engine.run_batch(requests)
    assert short.token_ids == (50, 51, end)
    assert longer.token_ids == (50, 51, 52, 53, 54, end)
    assert (short.finish, longer.finish) == (FinishReason.STOP, FinishReason.STOP)
    assert cut.token_ids == (50,) * 12
    assert cut.finish is FinishReason.LENGTH


async def test_an_end_of_turn_as_the_last_permitted_token_is_an_end(engine, requests, forced):
    end = engine.tokenizer.eos_token_id
    request = Request(requests[0].prompt_ids, [], 3, GREEDY)
    with forced([50, 51, end]):
        (completion,) = await engine.run_batch([request])
    assert (completion.token_ids, completion.finish) == ((50, 51, end), FinishReason.STOP)


@pytest.mark.parametrize("stop", ["</search>", "town"])
async def test_a_stop_string_ends_the_turn_and_is_kept(engine, requests, forced, stop):
    said = ids(engine, "so <search> town </search> and more") + [50] * 20
    request = Request(
        requests[1].prompt_ids,
        requests[1].images,
        20,
        Sampling(0.0, stop_strings=("</keyframe>", stop)),
    )
    with forced(said):
        (completion,) = await engine.run_batch([request])
    text = engine.tokenizer.decode(completion.token_ids)
    assert text.endswith(stop)
    assert text.count(stop) == 1
    assert completion.finish is FinishReason.STOP
    assert len(completion.logprobs) == len(completion.token_ids)


async def test_a_stop_string_of_many_tokens_is_found(engine, requests, forced):
    stop = "qxj zkw vvx"
    said = ids(engine, f"a b {stop} c") + [50] * 20
    assert len(ids(engine, stop)) > 6, "the point is that it takes many tokens"
    with forced(said):
        (completion,) = await engine.run_batch(
            [Request(requests[0].prompt_ids, [], 40, Sampling(0.0, stop_strings=(stop,)))]
        )
    assert engine.tokenizer.decode(completion.token_ids) == f"a b {stop}"


async def test_vision_tokens_are_never_sampled(engine, requests, forced):
    banned = [engine.tokenizer.convert_tokens_to_ids(token) for token in VISION_TOKENS]
    for sampling in (GREEDY, Sampling(1.0)):
        with forced(*[banned * 3] * 3):
            completions = await engine.run_batch(
                [Request(r.prompt_ids, r.images, 15, sampling) for r in requests]
            )
        assert not set(banned) & {token for c in completions for token in c.token_ids}


async def test_requests_that_wait_together_become_one_batch_for_each_way_of_sampling(
    tiny_folder, tiny_processor, engine, requests
):
    batches = []

    class Watched(TransformersEngine):
        async def run_batch(self, batch):
            batches.append([r.sampling.temperature for r in batch])
            return await super().run_batch(batch)

    watched = Watched(engine.model, tiny_processor, max_batch=2)
    ways = [GREEDY, Sampling(1.0), GREEDY, GREEDY]
    asked = [
        Request(requests[i % 3].prompt_ids, requests[i % 3].images, 4, way)
        for i, way in enumerate(ways)
    ]
    completions = await asyncio.gather(*map(watched.generate, asked))
    assert [len(c.token_ids) for c in completions] == [4] * 4
    assert sorted(batches) == [[0.0], [0.0, 0.0], [1.0]]
    assert completions[2].token_ids == (await engine.run_batch([asked[2]]))[0].token_ids


@pytest.mark.parametrize(
    ("error", "seen"),
    [(RuntimeError("out of memory"), InfraError), (ValueError("our bug"), ValueError)],
)
async def test_a_failing_model_fails_everybody_who_waits_and_nobody_hangs(
    engine, tiny_processor, requests, error, seen
):
    class Broken(TransformersEngine):
        def _generate(self, batch):
            raise error

    broken = Broken(engine.model, tiny_processor)
    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(broken.generate(r) for r in requests), return_exceptions=True
        )
        assert [type(result) for result in results] == [seen] * 3
        with pytest.raises(seen):
            await broken.generate(requests[0])


async def test_new_weights_change_what_is_said_and_old_ones_bring_it_back(engine, requests):
    before = (await engine.run_batch(requests[:1]))[0]
    old = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    engine.load_weights({name: torch.randn_like(tensor) * 0.05 for name, tensor in old.items()})
    assert (await engine.run_batch(requests[:1]))[0].token_ids != before.token_ids
    engine.load_weights(old)
    assert (await engine.run_batch(requests[:1]))[0] == before


def test_weights_of_another_model_are_refused(engine):
    with pytest.raises(InfraError, match="unknown parameters"):
        engine.load_weights({"another.weight": torch.zeros(1)})
