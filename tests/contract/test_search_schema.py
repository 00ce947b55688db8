"""Server and client agree on what they exchange, and each can be imported without the other."""

import json
import subprocess
import sys

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")

from retrieval_server.app import create_app
from retrieval_server.corpus.collection import load_corpus
from retrieval_server.corpus.index import build_in_memory
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.source import LocalSource
from retrieval_server.encoder import QueryVectorCache
from retrieval_server.schemas import MAX_QUERY_CHARS, MAX_TOP_K, CollectionKind
from retrieval_server.service import Route, Service
from seg_common.errors import ToolError
from seg_research.search.client import SearchClient


class LetterEncoder:
    """Counts letters; enough to tell short texts apart."""

    name = "letters"

    def encode(self, texts, role=None, progress=None):
        counts = np.array(
            [
                [text.lower().count(letter) + 1e-3 for letter in "abcdefghijklmnopqrstuvwxyz"]
                for text in texts
            ],
            np.float32,
        )
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def app(tmp_path):
    from PIL import Image

    Image.new("RGB", (600, 300), "green").save(tmp_path / "kite.png")
    lines = {
        "t.jsonl": [
            {"id": 0, "contents": "kite\nA kite flies."},
            {"id": "x", "contents": "star\nA star shines."},
        ],
        "i.jsonl": [
            {"id": 0, "name": "kite", "filename": "k", "image_path": "kite.png"},
            {"id": 1, "name": "star", "filename": "s"},
        ],
    }
    memory, indexes = QueryVectorCache(LetterEncoder()), {}
    for kind, (name, records) in zip(CollectionKind, lines.items(), strict=True):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        indexes[kind] = build_in_memory(load_corpus(kind, tmp_path / name), memory, Retriever.DENSE)
    local = LocalSource(indexes, memory, Retriever.DENSE)
    return create_app(Service({kind: Route(local) for kind in indexes}), local=local)


@pytest.fixture
async def client(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        SearchClient("http://test", attempts=1, transport=transport) as client,
    ):
        yield client


async def test_text_goes_there_and_back(client):
    outcome = await client.search("stars", "text", MAX_TOP_K)
    assert [hit.title for hit in outcome.hits] == ["star", "kite"]
    assert (outcome.hits[0].text, outcome.hits[0].source) == ("A star shines.", "t.jsonl#x")


async def test_images_go_there_and_back(client):
    outcome = await client.search("kites", "image", 2)
    image = outcome.hits[0].image
    assert image.size == (256, 128)
    assert np.abs(np.asarray(image).astype(int) - (0, 128, 0)).max() < 4
    assert outcome.hits[1].image is None


async def test_kinds_of_the_tool_are_kinds_of_the_server(client):
    from seg_research.recipes.seg_research.actions import SearchKind
    from seg_research.tools.search import _SERVER_KIND

    assert {_SERVER_KIND[kind] for kind in SearchKind} == set(CollectionKind)


@pytest.mark.parametrize("query", ["", " \n ", "x" * (MAX_QUERY_CHARS + 1)])
async def test_a_query_out_of_bounds_is_a_tool_error(client, query):
    with pytest.raises(ToolError, match="query: must"):
        await client.search(query, "text", 1)


async def test_a_query_without_a_utf8_form_is_answered(client):
    assert len((await client.search("\ud800", "text", 1)).hits) == 1


async def test_health_goes_there_and_back(client):
    health = await client.health()
    assert (health.collections.text, health.collections.images, health.encoder) == (2, 2, "letters")


def test_the_described_interface_is_the_promised_one(app):
    described = app.openapi()
    assert {"/search", "/search/batch", "/retrieve", "/healthz", "/readyz", "/metrics"} == set(
        described["paths"]
    )
    schemas = described["components"]["schemas"]
    assert set(schemas["SearchRequest"]["properties"]) == {
        "query",
        "kind",
        "top_k",
        "browse",
        "deadline_s",
    }
    assert set(schemas["SearchResponse"]["properties"]) == {
        "hits",
        "took_ms",
        "provider",
        "cached",
        "note",
    }
    assert set(schemas["Hit"]["properties"]) == {"id", "title", "text", "score", "image", "source"}
    assert set(schemas["RetrieveRequest"]["properties"]) == {"queries", "topk", "return_scores"}


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("retrieval_server.schemas", {"fastapi", "torch", "numpy", "uvicorn", "httpx"}),
        ("retrieval_server.server", {"fastapi", "torch", "numpy", "uvicorn", "pydantic", "httpx"}),
        (
            "retrieval_server.options",
            {"fastapi", "torch", "numpy", "uvicorn", "pydantic", "httpx", "faiss"},
        ),
        ("retrieval_server.app", {"torch", "sentence_transformers", "faiss", "bm25s"}),
        ("retrieval_server.factory", {"torch", "sentence_transformers", "faiss", "bm25s", "ray"}),
        ("retrieval_server.encoder", {"torch", "sentence_transformers"}),
        ("seg_research.search.client", {"fastapi", "torch", "uvicorn", "sentence_transformers"}),
    ],
)
def test_importing_one_side_loads_nothing_heavy_of_the_other(module, banned):
    code = f"import sys, {module}; print(*sorted({banned!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
