"""What a cold start trains on equals what a rollout of the same episode would be trained on:
tokens, mask, positions, images.
"""

import asyncio
import json
from types import SimpleNamespace

import pytest

from seg_research.recipes.registry import build_recipe
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.recipes.seg_research.turns import expert_turns, search_turn
from seg_research.testing.fakes import start_episode
from seg_research.training.rollout.ray_image_ref import ImageLender

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
from omegaconf import OmegaConf
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopWorker
from verl.utils import hf_processor
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.utils.model import extract_multi_modal_inputs

from seg_research.data.rows import read_samples
from seg_research.episode.run import run_episode
from seg_research.episode.transcript import (
    ImageRef,
    Message,
    Observation,
    Outcome,
    StopReason,
    Text,
)
from seg_research.mini.tiny_settings import tiny_settings
from seg_research.policies.chat_tokens import ChatTokens
from seg_research.policies.processor import allow_missing_torchvision
from seg_research.recipes.seg_research.actions import Search, SearchKind
from seg_research.recipes.seg_research.final_answer import final
from seg_research.records.image_store import ImageStore
from seg_research.records.writer import episode_row
from seg_research.tools.show_frame import ShowFrameTool
from seg_research.training.rollout.conversation import VerlConversation
from seg_research.training.sft.dataset import SftDataset
from seg_research.training.sft.episodes import Selection, SftSettings
from seg_research.training.sft.prepare import encode_files, write_encoded
from seg_research.training.sft.tokens import EpisodeEncoder, SizedChatTokens


class Loop(AgentLoopBase):
    """verl's agent loop with a server that says prepared turns, each closed by the end of turn."""

    def __init__(self, processor, turns):
        config = SimpleNamespace(
            config=OmegaConf.create({"actor_rollout_ref": {"rollout": {"prompt_length": 512}}})
        )
        data = SimpleNamespace(config=OmegaConf.create({}))
        super().__init__(
            config, self, processor.tokenizer, processor, None, data, hf_model_type="qwen3_vl"
        )
        self.turns = list(turns)

    async def generate(self, request_id, prompt_ids, sampling_params, image_data):
        ids = [
            *self.tokenizer.encode(self.turns.pop(0), add_special_tokens=False),
            self.tokenizer.eos_token_id,
        ]
        return SimpleNamespace(
            token_ids=ids, log_probs=[0.0] * len(ids), stop_reason="completed", extra_fields={}
        )

    async def run(self, sampling_params, **kwargs):
        raise NotImplementedError


class ImageSearch:
    """Finds text, or an image that no file holds."""

    name = "search"

    def accepts(self, action):
        return isinstance(action, Search)

    async def run(self, action, sample):
        image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
        found = (
            (ImageRef(image, "http://somewhere/emblem.jpg"), Text("\n"))
            if action.tool is SearchKind.IMAGE
            else (Text("a kite\n"),)
        )
        return Observation(
            Message("user", (Text("<information>\n1. "), *found, Text("</information>"))),
            "search",
            Outcome.OK,
        )


@pytest.fixture(scope="module")
def processor(tiny_folder):
    """With the positions of the model, as verl's trainers have it."""
    allow_missing_torchvision()
    return hf_processor(str(tiny_folder))


@pytest.fixture(scope="module")
def played(mini, processor, tmp_path_factory):
    """Two episodes in verl's conversation, one with an image more than the other, and the file
    that records them.
    """
    folder, settings = tmp_path_factory.mktemp("sft"), tiny_settings()
    recipe, out, chats = build_recipe(settings), folder / "predictions.jsonl", []
    for index, sample in enumerate(read_samples(mini.parquet("train"))[:2]):
        turns = [
            search_turn("emblem", "look", kind) for kind in list(SearchKind)[: index + 1]
        ] + expert_turns(sample)[-2:]

        async def play(sample=sample, turns=turns):
            chat = VerlConversation(
                Loop(processor, turns),
                {},
                recipe.grammar.stop_strings,
                settings.limits,
                ImageLender(),
            )
            return chat, await run_episode(
                start_episode(recipe, sample),
                chat,
                [ImageSearch(), ShowFrameTool(SegResearch().texts.show_frame, 96)],
            )

        chat, transcript = asyncio.run(play())
        assert transcript.stop is StopReason.ANSWERED
        score = recipe.rubric.score(transcript, sample.truth)
        images = ImageStore(folder / "images")
        row = episode_row(sample, transcript, final(transcript), score, rollout=0, images=images)
        with out.open("a") as file:
            file.write(json.dumps(row.to_json()) + "\n")
        chats.append((sample.sample_id, chat))
    return SimpleNamespace(file=out, chats=dict(chats), folder=folder)


@pytest.fixture(scope="module")
def encoded(played, processor):
    return encode_files([played.file], processor, SftSettings(), 8192, seed=0)


@pytest.fixture(scope="module")
def dataset(played, encoded, processor):
    write_encoded(played.folder / "train.parquet", encoded)
    return SftDataset(
        [str(played.folder / "train.parquet")],
        processor.tokenizer,
        SimpleNamespace(image_cache_gb=1.0),
        processor,
    )


def test_tokens_and_mask_are_those_of_the_rollout(played, encoded):
    assert {row["id"] for row in encoded.rows} == set(played.chats)
    for row in encoded.rows:
        trace = played.chats[row["id"]].tokens()
        assert row["input_ids"] == [*trace.prompt_ids, *trace.response_ids]
        assert row["loss_mask"] == [*[0] * len(trace.prompt_ids), *trace.response_mask]
        assert 0 < sum(row["loss_mask"]) < len(row["loss_mask"])


def test_images_and_positions_are_those_of_the_rollout(played, encoded, dataset, processor):
    counts = set()
    for row, item in zip(encoded.rows, (dataset[i] for i in range(len(dataset))), strict=True):
        images = played.chats[row["id"]].images
        counts.add(len(images))
        features = processor.image_processor(images=images, return_tensors="pt")
        seen = item["multi_modal_inputs"]
        assert torch.equal(seen["pixel_values"], features["pixel_values"]), (
            "the very pixels, the found image's too"
        )
        assert torch.equal(seen["image_grid_thw"], features["image_grid_thw"])
        ids = torch.tensor(row["input_ids"])[None]
        shown = {
            "image_grid_thw": features["image_grid_thw"],
            "mm_token_type_ids": torch.zeros_like(ids),
        }
        wanted = AgentLoopWorker._compute_position_ids(
            SimpleNamespace(processor=processor), ids, torch.ones_like(ids), shown
        )
        assert item["position_ids"].shape == (4, ids.shape[1])
        assert torch.equal(item["position_ids"], wanted[0])
    assert len(counts) == 2, "episodes with different numbers of pictures"


def test_verls_batches_take_different_numbers_of_images(dataset):
    items = [dataset[i] for i in range(len(dataset))]
    batch = SFTTensorCollator("no_padding")(items)
    joined = extract_multi_modal_inputs(batch["multi_modal_inputs"])
    assert torch.equal(
        joined["pixel_values"],
        torch.cat([item["multi_modal_inputs"]["pixel_values"] for item in items]),
    )
    assert batch["input_ids"].offsets().diff().tolist() == [
        len(item["input_ids"]) for item in items
    ]


def test_an_episode_without_images_fits_into_the_same_batch(tmp_path, processor):
    line = {
        "schema_version": 1,
        "id": "a",
        "prompt": [{"role": "user", "text": "hello"}],
        "turns": [{"role": "assistant", "text": "<answer> x </answer>"}],
        "stop_reason": "answered",
    }
    (tmp_path / "e.jsonl").write_text(json.dumps(line) + "\n")
    write_encoded(
        tmp_path / "e.parquet",
        encode_files([tmp_path / "e.jsonl"], processor, SftSettings(), 64, 0),
    )
    data = SftDataset(
        str(tmp_path / "e.parquet"),
        processor.tokenizer,
        SimpleNamespace(image_cache_gb=0.0),
        processor,
    )
    item = data[0]
    assert item["multi_modal_inputs"] == {}
    assert torch.equal(item["position_ids"], torch.arange(len(item["input_ids"])).expand(4, -1))
    assert SFTTensorCollator("no_padding")([item, item])["input_ids"].shape[0] == 2


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (50, 70), (8, 200)])
def test_counting_a_image_equals_processing_it(processor, size):
    message = Message(
        "user",
        (
            Text("see "),
            ImageRef(Image.new("RGB", size), "a.png"),
            Text(" and "),
            ImageRef(Image.new("RGB", (32, 32)), ""),
        ),
    )
    assert SizedChatTokens(processor).opening([message]) == ChatTokens(processor).opening([message])
    assert SizedChatTokens(processor).reply([], message) == ChatTokens(processor).reply([], message)


@pytest.mark.parametrize("spelt", ["<|im_end|>", "<|image_pad|>", "<|im_start|>"])
def test_a_turn_that_spells_chat_tokens_is_not_encoded(played, processor, spelt):
    (first, *_) = Selection(SftSettings()).read(played.file)
    said = Message("assistant", (Text(f"<thinking> {spelt} </thinking>"),))
    assert (
        EpisodeEncoder(processor).encode(type(first)(first.episode_id, first.prompt, (said,)))
        is None
    )
    assert EpisodeEncoder(processor).encode(first) is not None


def test_images_are_held_within_the_budget(dataset, processor, monkeypatch):
    from seg_research.training.sft.dataset import PatchCache

    paths = [image["path"] for row in dataset._table["images"].to_pylist() for image in row]
    made = []

    def process(images, return_tensors):
        made.append(images[0].size)
        return {"pixel_values": torch.zeros(4, 8), "image_grid_thw": torch.tensor([[1, 2, 2]])}

    cache = PatchCache(process, max_bytes=2 * 4 * 8 * 4)
    for path in (paths[0], paths[1], paths[0], paths[2], paths[0], paths[1]):
        cache.get(path, 32, 32)
    assert len(made) == 4, "the least recently used was made again, the others were held"
