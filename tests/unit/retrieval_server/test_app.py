import json
from contextlib import asynccontextmanager

import httpx
import pytest

pytest.importorskip("fastapi")

from retrieval_server.app import MAX_BODY_BYTES, create_app
from retrieval_server.batching import Batcher, OverloadedError
from retrieval_server.collections import load_image_corpus, load_text_corpus
from retrieval_server.index import build_index


@pytest.fixture
def app(corpus, encoder):
    collections = (load_text_corpus(corpus[0]), load_image_corpus(corpus[1]))
    return create_app({c.kind: build_index(c, encoder) for c in collections}, encoder, default_top_k=2)


@asynccontextmanager
async def connected(app):
    """Run the app's own life cycle and talk to it without a network; a bug inside is a 500, as over a network."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def client(app):
    async with connected(app) as client:
        yield client


async def test_text_search(client):
    reply = await client.post("/search", json={"query": "who was born in Velmora", "kind": "text", "top_k": 1})
    assert reply.status_code == 200
    (hit,) = reply.json()["hits"]
    assert hit["title"] == "Tarn Oskel"
    assert hit["text"].endswith("born in Velmora.")
    assert (hit["id"], hit["source"], hit["image"]) == ("b", "text_corpus.jsonl#b", None)
    assert 0 < hit["score"] <= 1
    assert reply.json()["took_ms"] > 0


async def test_image_search_returns_pictures_and_titles_of_missing_ones(client):
    hits = (await client.post("/search", json={"query": "crest of Nobody", "kind": "image", "top_k": 3})).json()["hits"]
    assert hits[0]["title"] == "crest of Nobody"
    images = {hit["title"]: hit["image"] for hit in hits}
    assert images["crest of Nobody"] is None
    assert images["emblem of Velmora"].startswith("data:image/jpeg;base64,")


async def test_the_default_number_of_hits_is_the_servers(client):
    assert len((await client.post("/search", json={"query": "town"})).json()["hits"]) == 2


async def test_equal_passages_keep_the_order_of_the_corpus(client):
    hits = (await client.post("/search", json={"query": "Velmora harbour town emblem blue kite", "top_k": 2})).json()["hits"]
    assert [hit["id"] for hit in hits] == ["0", "3"]
    assert hits[0]["score"] == hits[1]["score"]


async def test_retrieve_answers_as_search_r1_does(client):
    queries = ["mascot Quillon", "who was born in Velmora"]
    scored = (await client.post("/retrieve", json={"queries": queries, "topk": 1, "return_scores": True})).json()["result"]
    assert [found[0]["document"]["id"] for found in scored] == [2, "b"]
    assert scored[0][0]["document"]["contents"].startswith("Quillon\nThe team")
    assert 0 < scored[0][0]["score"] <= 1
    plain = (await client.post("/retrieve", json={"queries": queries, "topk": 1})).json()["result"]
    assert plain == [[found[0]["document"]] for found in scored]


async def test_equal_queries_of_one_batch_are_embedded_once(client, encoder):
    encoder.seen.clear()
    await client.post("/retrieve", json={"queries": ["kite", "star", "kite"]})
    assert encoder.seen == [["kite", "star"]]


async def test_health(client):
    reply = (await client.get("/healthz")).json()
    assert reply["status"] == "ok"
    assert reply["collections"] == {"text": 4, "images": 3}
    assert reply["encoder"] == "words"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": "   "}, "query: must not be empty"),
        ({"query": "x" * 501}, "query: must have at most 500 characters"),
        ({}, "query: Field required"),
        ({"query": 7}, "query: "),
        ({"query": "\ud800"}, "query: "),
        ({"query": "a", "kind": "video"}, "kind: "),
        ({"query": "a", "top_k": 0}, "top_k: "),
        ({"query": "a", "top_k": 101}, "top_k: "),
        ({"query": "a", "top_k": "3"}, "top_k: "),
        ({"query": "a", "topk": 3}, "topk: Extra inputs are not permitted"),
        ([], "body: "),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong_with_it(client, body, said):
    reply = await client.post("/search", content=json.dumps(body), headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith(said)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 20_000, b'{"query": NaN}'])
async def test_what_is_not_json_is_refused(client, body):
    reply = await client.post("/search", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in {400, 422}
    assert isinstance(reply.json()["detail"], str)


@pytest.mark.parametrize("queries", [[], ["a", " "], ["a"] * 257, "a"])
async def test_bad_lists_of_queries_are_refused(client, queries):
    reply = await client.post("/retrieve", json={"queries": queries})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("queries: ")


async def test_500_characters_after_stripping_are_allowed(client):
    assert (await client.post("/search", json={"query": "  " + "x" * 500 + "\n"})).status_code == 200


async def test_large_bodies_are_refused_with_and_without_a_stated_length(client):
    async def chunks():
        for _ in range(3):
            yield b" " * (MAX_BODY_BYTES // 2)

    for content in (b" " * (MAX_BODY_BYTES + 1), chunks()):
        reply = await client.post("/search", content=content, headers={"content-type": "application/json"})
        assert reply.status_code == 413
        assert "larger than" in reply.json()["detail"]


async def test_a_collection_that_is_not_served_is_named(corpus, encoder):
    collection = load_text_corpus(corpus[0])
    async with connected(create_app({collection.kind: build_index(collection, encoder)}, encoder)) as client:
        reply = await client.post("/search", json={"query": "kite", "kind": "image"})
    assert reply.status_code == 422
    assert reply.json()["detail"] == "this server has no image collection; it has: text"


async def test_a_bug_is_answered_without_telling_what_it_was_and_the_server_goes_on(client, encoder, monkeypatch, caplog):
    def broken(texts, progress=None):
        raise RuntimeError("/home/secret/model.bin is broken")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode", broken)
        reply = await client.post("/search", json={"query": "kite"})
    assert reply.status_code == 500
    assert reply.json() == {"detail": "internal error of the search server; its log says more"}
    assert "/home/secret" in caplog.text
    assert (await client.post("/search", json={"query": "kite"})).status_code == 200


async def test_overload_says_when_to_come_back(client, monkeypatch):
    async def full(self, lookup):
        raise OverloadedError

    monkeypatch.setattr(Batcher, "submit", full)
    reply = await client.post("/search", json={"query": "kite"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    assert "try again" in reply.json()["detail"]
