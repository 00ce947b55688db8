"""A conversation keeps the tokens it sampled and was shown, and admits what it is shown whole or
not at all.
"""

import asyncio
from dataclasses import dataclass

import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch
from PIL import Image

from seg_common.errors import InvariantError
from seg_research.episode.limits import Limits
from seg_research.episode.transcript import FinishReason, ImageRef, Message, Text
from seg_research.policies.chat_tokens import ChatTokens
from seg_research.policies.engine import Completion, Sampling
from seg_research.policies.processor import IMAGE_TOKEN
from seg_research.policies.transformers_policy import LocalConversation, LocalPolicy
from seg_research.policies.turn_barrier import TurnBarrier

SAMPLING = Sampling(1.0)


def picture(color) -> ImageRef:
    return ImageRef(Image.new("RGB", (64, 64), color), f"{color}.jpg")


OPENING = (Message("user", (Text("which one?"), picture("gray"))),)
SHOWN = [
    Message("user", (Text(f"result {i}: "), picture(color), Text(" end")))
    for i, color in enumerate(("red", "green", "blue"))
]


@dataclass
class Words:
    """Stands where the barrier and its engine stand; says prepared tokens."""

    turns: list[tuple[int, ...]]
    tokenizer: object

    @property
    def engine(self):
        return self

    async def generate(self, member, request):
        said = self.turns.pop(0)[: request.max_tokens]
        return Completion(said, (-0.5,) * len(said), FinishReason.STOP)

    async def leave(self, member):
        pass


def conversation(processor, turns, **limits) -> LocalConversation:
    given = {"max_turn_tokens": 30, "max_response_tokens": 400, "reserve_tokens": 10, **limits}
    return LocalConversation(
        ChatTokens(processor), Words(turns, processor.tokenizer), Limits(**given), SAMPLING, 512
    )


@pytest.fixture(scope="module")
def turns(tiny_processor) -> list[tuple[int, ...]]:
    """Three turns; the second ends without an end-of-turn token, as after a stop string."""
    end = tiny_processor.tokenizer.eos_token_id
    encode = tiny_processor.tokenizer.encode
    return [
        (*encode("<search> a town </search>"), end),
        tuple(encode("<search> a kite </search>")),
        (*encode("<keyframe> 12 </keyframe>"), end),
    ]


async def play(chat: LocalConversation, shown=SHOWN) -> list[bool]:
    """Speak and be shown, until something is refused; return what was admitted."""
    assert await chat.open(OPENING)
    admitted = []
    for message in shown:
        await chat.generate(30)
        admitted.append(await chat.observe(message))
        if not admitted[-1]:
            break
    return admitted


async def test_the_mask_is_1_exactly_on_what_was_sampled(tiny_processor, turns):
    chat = conversation(tiny_processor, list(turns))
    assert await play(chat) == [True] * 3
    trace = chat.tokens()
    sampled = [
        token for token, mask in zip(trace.response_ids, trace.response_mask, strict=True) if mask
    ]
    assert sampled == [token for turn in turns for token in turn]
    assert [
        p for p, mask in zip(trace.response_logprobs, trace.response_mask, strict=True) if mask
    ] == [-0.5] * len(sampled)
    assert {
        p for p, mask in zip(trace.response_logprobs, trace.response_mask, strict=True) if not mask
    } == {0.0}


async def test_the_whole_reads_as_chatml_and_closes_an_unclosed_turn_once(tiny_processor, turns):
    chat = conversation(tiny_processor, list(turns))
    await play(chat)
    trace = chat.tokens()
    text = tiny_processor.tokenizer.decode([*trace.prompt_ids, *trace.response_ids]).replace(
        IMAGE_TOKEN, ""
    )
    shown = [
        f"<|im_start|>user\nresult {i}: <|vision_start|><|vision_end|>"
        " end<|im_end|>\n<|im_start|>assistant\n"
        for i in range(3)
    ]
    assert (
        text.partition("assistant\n")[2]
        == f"<search> a town </search><|im_end|>\n{shown[0]}<search> a kite"
        f" </search><|im_end|>\n{shown[1]}<keyframe> 12 </keyframe><|im_end|>\n{shown[2]}"
    )


def num_picture_runs(processor, token_ids) -> int:
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    return sum(
        token == image_id and before != image_id
        for before, token in zip((None, *token_ids), token_ids, strict=False)
    )


async def test_a_message_is_admitted_whole_or_not_at_all_wherever_the_budget_ends(
    tiny_processor, turns
):
    whole = conversation(tiny_processor, list(turns))
    await play(whole)
    everything = whole.tokens().response_ids
    reserve, seen = 10, set()
    for budget in range(reserve + 1, len(everything) + reserve + 1):
        chat = conversation(
            tiny_processor, list(turns), max_response_tokens=budget, reserve_tokens=reserve
        )
        admitted = await play(chat)
        trace = chat.tokens()
        assert trace.response_ids == everything[: len(trace.response_ids)]
        assert len(trace.response_ids) <= budget
        assert (
            num_picture_runs(tiny_processor, [*trace.prompt_ids, *trace.response_ids])
            == len(chat._images)
            == 1 + sum(admitted)
        )
        if admitted[-1]:
            assert len(trace.response_ids) + reserve <= budget
        else:
            assert trace.response_mask[-1] == 1, "nothing of the refused message is left behind"
        seen.add(sum(admitted))
    assert seen == {0, 1, 2, 3}


async def test_admission_depends_on_the_last_token_alone(tiny_processor, turns):
    probe = conversation(tiny_processor, list(turns))
    await play(probe, SHOWN[:1])
    exactly = len(probe.tokens().response_ids) + 10
    for budget, fits in ((exactly, True), (exactly - 1, False)):
        chat = conversation(tiny_processor, list(turns), max_response_tokens=budget)
        assert await play(chat, SHOWN[:1]) == [fits]


async def test_a_turn_gets_what_is_left_of_the_budget_and_no_turn_starts_without_any(
    tiny_processor, turns
):
    chat = conversation(
        tiny_processor,
        [turns[0], turns[0]],
        max_response_tokens=len(turns[0]) + 2,
        reserve_tokens=1,
    )
    await chat.open(OPENING)
    await chat.generate(30)
    assert (await chat.generate(30)).num_tokens == 2
    with pytest.raises(InvariantError, match="no room"):
        await chat.generate(30)


async def test_an_opening_above_its_budget_is_refused(tiny_processor):
    length = len(ChatTokens(tiny_processor).opening(OPENING))
    for budget, fits in ((length, True), (length - 1, False)):
        chat = LocalConversation(
            ChatTokens(tiny_processor),
            Words([], tiny_processor.tokenizer),
            Limits(),
            SAMPLING,
            budget,
        )
        assert await chat.open(OPENING) is fits


async def test_logprobs_are_those_of_one_plain_pass_though_pictures_entered_midway(
    engine, tiny_processor
):
    lockstep = TurnBarrier(engine, lambda turn: torch.manual_seed(turn))
    limits = Limits(max_turn_tokens=12, max_response_tokens=400, reserve_tokens=10)
    policy = LocalPolicy(ChatTokens(tiny_processor), lockstep, limits, SAMPLING)
    chats = [policy.converse(None, rollout) for rollout in range(2)]

    async def run(chat, shown):
        await chat.open(OPENING)
        for message in shown:
            await chat.generate(12)
            assert await chat.observe(message)
        await chat.generate(12)
        await chat.close()

    await asyncio.gather(run(chats[0], SHOWN), run(chats[1], SHOWN[:1]))
    for chat, num_pictures in zip(chats, (4, 2), strict=True):
        trace = chat.tokens()
        whole = torch.tensor([[*trace.prompt_ids, *trace.response_ids]])
        features = tiny_processor.image_processor(images=chat._images, return_tensors="pt")
        assert len(features["image_grid_thw"]) == num_pictures
        image_id = tiny_processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        with torch.no_grad():
            logits = engine.model(
                input_ids=whole,
                mm_token_type_ids=(whole == image_id).long(),
                use_cache=False,
                **features,
            ).logits
        scores = torch.log_softmax(logits[0, len(trace.prompt_ids) - 1 : -1], dim=-1)
        expected = scores.gather(1, torch.tensor(trace.response_ids)[:, None])[:, 0]
        mask = torch.tensor(trace.response_mask)
        assert int(mask.sum()) > 20
        assert ((expected - torch.tensor(trace.response_logprobs)) * mask).abs().max() < 1e-4
