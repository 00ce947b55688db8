"""The predictor's way from messages to tokens equals verl's: what was trained on is what is
evaluated.
"""

from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from omegaconf import OmegaConf
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopBase
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from seg_research.episode.limits import Limits
from seg_research.episode.transcript import FinishReason, ImageRef, Message, Text
from seg_research.policies.chat_tokens import ChatTokens, as_chat
from seg_research.policies.engine import Completion, Sampling
from seg_research.policies.transformers_policy import LocalConversation
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.training.rollout.conversation import VerlConversation

LIMITS = Limits(max_turn_tokens=64, max_response_tokens=600, reserve_tokens=8)
SAID = (
    "<thinking> a </thinking>\n<search> town </search>",
    "<keyframe> 12 </keyframe>\n",
    " <answer> x </answer> ",
    "plain",
)


def picture(color, side_px=64) -> ImageRef:
    return ImageRef(Image.new("RGB", (side_px, side_px), color), f"{color}.jpg")


def opening(num_frames: int) -> tuple[Message, ...]:
    frames = [picture(color) for color in ("red", "green", "blue")[:num_frames]]
    recipe = SegResearch(SegResearchSettings(brief_prompt=True))
    user = recipe.user_parts("which one wears the emblem?", list(enumerate(frames)))
    system = recipe.system_text(with_search=True)
    return Message("system", (Text(system),)), Message("user", user)


def shown(num_images: int) -> list[Message]:
    """Three observations, of which the first `num_images` hold a picture."""
    texts = (
        "<information>\n1. (Title: Tarn) ",
        "Frame 12 in high resolution: ",
        "\n\nthat turn could not be used ",
    )
    return [
        Message(
            "user",
            (Text(text), picture(("red", "green", "blue")[i], 32 * (i + 1)), Text(" \n"))
            if i < num_images
            else (Text(text),),
        )
        for i, text in enumerate(texts)
    ]


def turns(tokenizer, closed: bool) -> list[tuple[int, ...]]:
    end = [tokenizer.eos_token_id] if closed else []
    return [(*tokenizer.encode(text, add_special_tokens=False), *end) for text in SAID]


@pytest.fixture(scope="module")
def builder(tiny_processor):
    return create_continuous_token_builder(
        tiny_processor.tokenizer, hf_model_type="qwen3_vl", processor=tiny_processor
    )


@pytest.mark.parametrize("num_frames", [0, 1, 3])
def test_openings_are_equal(builder, tiny_processor, num_frames):
    messages = opening(num_frames)
    images = [image.image for message in messages for image in message.images]
    expected = builder.build_initial_tokens([as_chat(m) for m in messages], images=images or None)
    assert ChatTokens(tiny_processor).opening(messages) == list(expected)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("num_images", [0, 1])
def test_replies_are_equal(builder, tiny_processor, closed, num_images):
    chat, tokenizer = ChatTokens(tiny_processor), tiny_processor.tokenizer
    message, sampled = shown(num_images)[0], turns(tokenizer, closed)[0]
    before = [
        *[as_chat(m) for m in opening(1)],
        {"role": "assistant", "content": tokenizer.decode(sampled, skip_special_tokens=True)},
    ]
    whole = [*chat.opening(opening(1)), *sampled]
    closing = [] if closed else [tokenizer.eos_token_id]
    merged = builder.merge_context_tokens(before, [*before, as_chat(message)], [*whole, *closing])
    assert [*whole, *chat.reply(sampled, message)] == list(merged.token_ids)


class Loop(AgentLoopBase):
    """verl's agent loop as it is, with a server that says prepared tokens."""

    def __init__(self, processor, said):
        config = SimpleNamespace(
            config=OmegaConf.create({"actor_rollout_ref": {"rollout": {"prompt_length": 512}}})
        )
        data = SimpleNamespace(config=OmegaConf.create({}))
        super().__init__(
            config, self, processor.tokenizer, processor, None, data, hf_model_type="qwen3_vl"
        )
        self.said, self.seen_images = list(said), []

    async def generate(self, request_id, prompt_ids, sampling_params, image_data):
        self.seen_images.append(len(image_data or ()))
        ids = self.said.pop(0)[: sampling_params["max_tokens"]]
        return SimpleNamespace(
            token_ids=list(ids),
            log_probs=[-0.25] * len(ids),
            stop_reason="completed",
            extra_fields={"global_steps": 3},
        )

    async def run(self, sampling_params, **kwargs):
        raise NotImplementedError


class Words:
    def __init__(self, processor, said):
        self.engine, self.said = SimpleNamespace(tokenizer=processor.tokenizer), list(said)

    async def generate(self, member, request):
        ids = self.said.pop(0)[: request.max_tokens]
        return Completion(ids, (-0.25,) * len(ids), FinishReason.STOP)

    async def leave(self, member):
        pass


async def play(chat, messages) -> list[object]:
    heard = [await chat.open(opening(2))]
    for message in messages:
        generation = await chat.generate(LIMITS.max_turn_tokens)
        heard += [
            generation.text,
            generation.finish,
            generation.logprobs,
            await chat.observe(message),
        ]
    heard.append((await chat.generate(LIMITS.max_turn_tokens)).text)
    return heard


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("num_images", [0, 1, 2, 3])
async def test_whole_conversations_have_equal_traces(tiny_processor, num_images, closed):
    said, messages = turns(tiny_processor.tokenizer, closed), shown(num_images)
    loop = Loop(tiny_processor, said)
    theirs = VerlConversation(loop, {"temperature": 1.0}, ("</search>",), LIMITS)
    ours = LocalConversation(
        ChatTokens(tiny_processor), Words(tiny_processor, said), LIMITS, Sampling(), 512
    )
    assert await play(ours, messages) == await play(theirs, messages)
    assert ours.tokens() == theirs.tokens()
    assert len(ours._images) == len(theirs.images) == 2 + num_images
    assert loop.seen_images == [2, *(2 + min(i, num_images) for i in (1, 2, 3))]
    assert theirs.global_steps == {"min_global_steps": 3, "max_global_steps": 3}
    sampled = [
        t
        for t, mask in zip(ours.tokens().response_ids, ours.tokens().response_mask, strict=True)
        if mask
    ]
    assert sampled == [t for turn in said for t in turn]


async def test_both_refuse_at_the_same_budget(tiny_processor):
    said, messages = turns(tiny_processor.tokenizer, True), shown(3)
    whole = LocalConversation(
        ChatTokens(tiny_processor), Words(tiny_processor, said), LIMITS, Sampling(), 512
    )
    await play(whole, messages)
    seen = set()
    for budget in range(20, len(whole.tokens().response_ids) + LIMITS.reserve_tokens, 7):
        limits = Limits(max_turn_tokens=64, max_response_tokens=budget, reserve_tokens=8)
        results = []
        for chat in (
            VerlConversation(Loop(tiny_processor, said), {}, (), limits),
            LocalConversation(
                ChatTokens(tiny_processor), Words(tiny_processor, said), limits, Sampling(), 512
            ),
        ):
            await chat.open(opening(1))
            admitted = []
            for message in messages:
                await chat.generate(64)
                admitted.append(await chat.observe(message))
                if not admitted[-1]:
                    break
            results.append((admitted, chat.tokens()))
        assert results[0] == results[1]
        seen.add(len(results[0][0]))
    assert seen == {1, 2, 3}


async def test_an_opening_above_verls_limit_is_refused_not_raised(tiny_processor):
    loop = Loop(tiny_processor, [])
    loop.rollout_config.prompt_length = 20
    assert await VerlConversation(loop, {}, (), LIMITS).open(opening(2)) is False


async def test_a_turn_that_fills_its_budget_without_an_end_was_cut(tiny_processor):
    said = [tuple(tiny_processor.tokenizer.encode("a b c d e f", add_special_tokens=False))]
    chat = VerlConversation(Loop(tiny_processor, said), {}, (), LIMITS)
    await chat.open(opening(1))
    assert (await chat.generate(3)).finish is FinishReason.LENGTH
