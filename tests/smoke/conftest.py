"""A tiny model that says the same five turns to everybody: a quick way to rollouts whose searches and key frames bring pictures."""

import asyncio
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

TURNS = (
    '<search> {"name": "image_search", "query": "emblem"} </search>',
    '<search> {"name": "text_search", "query": "town"} </search>',
    '<search> {"name": "image_search", "query": "mascot"} </search>',
    "<keyframe> FRAME </keyframe>",
    '<answer> {"bbox_2d": [200, 200, 600, 600], "point_2d": [400, 400]} </answer>',
)


@pytest.fixture(scope="session")
def one_video(mini, tmp_path_factory) -> Path:
    """The training questions about one video, so that frames of the same numbers are offered with each."""
    from seg_research.datasets.parquet import read_table, write_rows

    rows = read_table(mini.parquet("train"))
    path = tmp_path_factory.mktemp("one_video") / "train.parquet"
    write_rows(path, [row for row in rows if row["video_path"] == rows[0]["video_path"]])
    return path


@pytest.fixture(scope="session")
def talkative_model(one_video, search_url, tmp_path_factory) -> Path:
    """A model that mostly says those turns, but is not yet sure."""
    import torch

    from seg_research.datasets.parquet import read_samples
    from seg_research.env.runner import run_episode
    from seg_research.models.processor import load_processor
    from seg_research.models.tiny import TinySize, build_model, build_tokenizer, save_tiny
    from seg_research.policies.chat_tokens import ChatTokens
    from seg_research.recipes.settings import tiny_settings
    from seg_research.search.client import SearchClient
    from seg_research.training.warmup import TeacherConversation, WarmupSettings, _example, read_corpus, train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("talkative") / "model"
    samples, settings, how = read_samples(one_video), tiny_settings(), WarmupSettings(steps=28, batch_size=4, lr=6e-3, text_share=0.5)
    (frame, *_) = set.intersection(*({f.frame_id for f in s.frames} for s in samples))
    turns = [turn.replace("FRAME", str(frame)) for turn in TURNS]
    tokenizer = build_tokenizer([*read_corpus(samples, how), *turns * 4], TinySize().vocab)
    model = build_model(tokenizer, TinySize(), seed=0)
    save_tiny(model, tokenizer, folder)
    processor = load_processor(folder)

    async def demonstrate():
        async with SearchClient(search_url) as client:
            recipe = settings.build_recipe()
            tools = recipe.build_tools(client, settings.view)
            for sample in samples:
                teacher = TeacherConversation(ChatTokens(processor), processor, list(turns))
                await run_episode(recipe.episode(sample, settings.limits), teacher, tools)
                yield _example(teacher, processor)

    async def collect():
        return [example async for example in demonstrate()]

    train(model, asyncio.run(collect()), processor, how, lambda loss: None)
    save_tiny(model, tokenizer, folder)
    settings.save(folder)
    return folder
