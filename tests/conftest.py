"""What several tests share and what takes seconds to make: an untrained tiny model, a small mini benchmark, a search server on it."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

# Threads that wait for each other by spinning slow a loaded machine down tenfold; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXTS = (
    "You find one target in a video. Frame 0 frame 12 frame 24: who wears the emblem of the harbour town?",
    '<thinking> find it </thinking>\n<search> {"name": "text_search", "query": "emblem of the town"} </search>',
    '<thinking> it is in plain sight </thinking>\n<answer> {"bbox_2d": [100, 120, 400, 520], "point_2d": [240, 300]} </answer>',
    "<information>\n1. (Title: Velmora) Velmora is a harbour town whose emblem is the blue kite.\n</information>",
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny Qwen3-VL as it was initialised."""
    pytest.importorskip("transformers", reason="models need the train extra")
    from seg_research.models.tiny import TinySize, build_model, build_tokenizer, save_tiny
    from seg_research.recipes.settings import tiny_settings

    folder = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = build_tokenizer(TEXTS, TinySize().vocab)
    save_tiny(build_model(tokenizer, TinySize(), seed=0), tokenizer, folder)
    tiny_settings().save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_processor(tiny_folder):
    from seg_research.models.processor import load_processor

    return load_processor(tiny_folder)


@dataclass(frozen=True)
class MiniFiles:
    """A mini benchmark on disk, all three splits prepared with 6 frames of 64 px."""

    root: Path

    def parquet(self, split: str) -> Path:
        return self.root / f"{split}_6_64_64.parquet"

    @property
    def text(self) -> Path:
        return self.root / "local_KB" / "text_corpus.jsonl"

    @property
    def images(self) -> Path:
        return self.root / "local_KB" / "image_corpus.jsonl"


@pytest.fixture(scope="session")
def mini(tmp_path_factory) -> MiniFiles:
    """Twelve training, four validation and twelve test questions."""
    from seg_research.datasets.mini.writer import MiniSizes, write_mini
    from seg_research.datasets.okvos import Preparation, prepare_okvos
    from seg_research.datasets.splits import Split

    root = tmp_path_factory.mktemp("shared") / "mini"
    write_mini(root, seed=3, sizes=MiniSizes(train=12, val=4, test=12))
    for split in Split:
        prepare_okvos(root, Preparation(split, max_size_px=64, min_size_px=64, patch_factor=16))
    return MiniFiles(root)


@pytest.fixture(scope="session")
def search_url(mini):
    """Address of a search server on that benchmark's knowledge base."""
    pytest.importorskip("sentence_transformers", reason="the search server needs the retrieval extra")
    from retrieval_server.server import running_server

    with running_server(mini.text, mini.images) as url:
        yield url
