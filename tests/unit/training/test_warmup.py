"""Warm-up examples carry loss on demonstrated turns alone, and training on them makes them likely."""

import math

import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch

from seg_research.core.errors import InfraError
from seg_research.core.transcript import Outcome
from seg_research.datasets.parquet import read_samples
from seg_research.models.processor import IMAGE_TOKEN
from seg_research.models.tiny import TinySize, build_model
from seg_research.policies.imitation import demonstration
from seg_research.protocol.actions import Search
from seg_research.recipes.settings import tiny_settings
from seg_research.tools.base import text_observation
from seg_research.tools.keyframe import KeyframeTool
from seg_research.training.warmup import IGNORED, WarmupSettings, demonstrate, read_corpus, train

HOW = WarmupSettings(steps=6, batch_size=2, lr=3e-3, variants=2)
SMALL = TinySize(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, feed_forward=32, vision_hidden=32, vision_layers=2)


class EchoSearch:
    name = "search"

    def __init__(self, error=None):
        self.error = error

    def accepts(self, action):
        return isinstance(action, Search)

    async def run(self, action, sample):
        if self.error:
            raise self.error
        return text_observation(f"<information>{action.query}</information>", "text_search", Outcome.OK)


@pytest.fixture(scope="module")
def samples(mini):
    return read_samples(mini.parquet("train"))[:4]


def decode(processor, ids) -> str:
    return processor.tokenizer.decode(ids)


async def test_loss_falls_on_the_demonstrated_turns_and_their_ends_alone(samples, tiny_processor):
    ticks = []
    made = await demonstrate(samples, tiny_settings(), [EchoSearch(), KeyframeTool(96)], tiny_processor, HOW, lambda: ticks.append(1))
    assert len(made) == len(ticks) == len(samples) * HOW.variants
    for number, example in enumerate(made):
        sample, rollout = samples[number % len(samples)], number // len(samples)
        with_loss = example.labels != IGNORED
        assert torch.equal(example.labels[with_loss], example.ids[with_loss])
        turns = demonstration(sample, rollout, HOW.seed, HOW.variety)
        said = decode(tiny_processor, example.ids[with_loss])
        # An episode may end before all was said: a turn without a thought is still a turn, one without an action is the last.
        assert "".join(f"{turn}<|im_end|>" for turn in turns).startswith(said)
        assert said.count("<|im_end|>") >= 1
        image_id = tiny_processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        assert not with_loss[example.ids == image_id].any()


async def test_pictures_and_their_placeholders_agree(samples, tiny_processor):
    made = await demonstrate(samples, tiny_settings(), [EchoSearch(), KeyframeTool(96)], tiny_processor, HOW, lambda: None)
    image_id = tiny_processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    chosen = 0
    for example in made:
        merged = (example.image_grid_thw.prod(dim=1) // 4).sum()
        assert int((example.ids == image_id).sum()) == int(merged)
        assert len(example.pixel_values) == int(example.image_grid_thw.prod(dim=1).sum())
        chosen += len(example.image_grid_thw) == 7
    assert chosen, "six frames, and the key frame in some"


async def test_a_failing_service_ends_the_warm_up(samples, tiny_processor):
    tools = [EchoSearch(InfraError("search server down")), KeyframeTool(96)]
    with pytest.raises(InfraError, match="search server down"):
        await demonstrate(samples, tiny_settings(), tools, tiny_processor, HOW, lambda: None)


def test_the_corpus_holds_prompts_and_turns(samples):
    corpus = "\n".join(read_corpus(samples, HOW))
    assert all(sample.question in corpus for sample in samples)
    assert "<keyframe>" in corpus
    assert "text_search" in corpus


async def test_training_lowers_the_loss_and_repeats_itself(samples, tiny_processor):
    made = await demonstrate(samples, tiny_settings(), [EchoSearch(), KeyframeTool(96)], tiny_processor, HOW, lambda: None)
    runs = []
    for _ in range(2):
        losses: list[float] = []
        model = build_model(tiny_processor.tokenizer, SMALL, seed=0)
        final = train(model, made, tiny_processor, WarmupSettings(steps=12, batch_size=2, lr=1e-2), losses.append)
        runs.append(losses)
        assert len(losses) == 12
        assert not model.training
        assert final == losses[-1]
    assert runs[0] == runs[1]
    assert runs[0][0] == pytest.approx(math.log(len(tiny_processor.tokenizer)), abs=0.5)
    assert runs[0][-1] < runs[0][0] - 1
