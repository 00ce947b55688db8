import asyncio
import json
import re
import threading
from contextlib import asynccontextmanager

import httpx
import pytest

pytest.importorskip("fastapi")

from retrieval_server.corpus.batching import Batcher, OverloadedError
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.middleware import MAX_BODY_BYTES


@pytest.fixture
def app(collections, serve):
    return serve(collections)


@asynccontextmanager
async def connected(app):
    """Run the app's own life cycle and talk to it without a network; a bug inside is a 500, as over
    a network.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@pytest.fixture
async def client(app):
    async with connected(app) as client:
        yield client


async def test_text_search(client):
    reply = await client.post(
        "/search", json={"query": "who was born in Velmora", "kind": "text", "top_k": 1}
    )
    assert reply.status_code == 200
    (hit,) = reply.json()["hits"]
    assert hit["title"] == "Tarn Oskel"
    assert hit["text"].endswith("born in Velmora.")
    assert (hit["id"], hit["source"], hit["image"]) == ("b", "text_corpus.jsonl#b", None)
    assert 0 < hit["score"] <= 1
    assert reply.json()["took_ms"] > 0


async def test_image_search_returns_images_and_titles_of_missing_ones(client):
    hits = (
        await client.post("/search", json={"query": "crest of Nobody", "kind": "image", "top_k": 3})
    ).json()["hits"]
    assert hits[0]["title"] == "crest of Nobody"
    images = {hit["title"]: hit["image"] for hit in hits}
    assert images["crest of Nobody"] is None
    assert images["emblem of Velmora"].startswith("data:image/jpeg;base64,")


async def test_the_default_number_of_hits_is_the_servers(client):
    assert len((await client.post("/search", json={"query": "town"})).json()["hits"]) == 2


async def test_equal_passages_keep_the_order_of_the_corpus(client):
    hits = (
        await client.post(
            "/search", json={"query": "Velmora harbour town emblem blue kite", "top_k": 2}
        )
    ).json()["hits"]
    assert [hit["id"] for hit in hits] == ["0", "3"]
    assert hits[0]["score"] == hits[1]["score"]


async def test_retrieve_answers_as_search_r1_does(client):
    queries = ["mascot Quillon", "who was born in Velmora"]
    scored = (
        await client.post("/retrieve", json={"queries": queries, "topk": 1, "return_scores": True})
    ).json()["result"]
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
        ({"query": "\ud800"}, "body: Invalid JSON"),
        ({"query": "a", "kind": "video"}, "kind: "),
        ({"query": "a", "top_k": 0}, "top_k: "),
        ({"query": "a", "top_k": 101}, "top_k: "),
        ({"query": "a", "top_k": "3"}, "top_k: "),
        ({"query": "a", "deadline_s": 0}, "deadline_s: "),
        ({"query": "a", "topk": 3}, "topk: Extra inputs are not permitted"),
        ([], "body: "),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong_with_it(client, body, said):
    reply = await client.post(
        "/search", content=json.dumps(body), headers={"content-type": "application/json"}
    )
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
    assert reply.json()["detail"].startswith("queries")


@pytest.mark.parametrize("stated", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("path", ["/search", "/search/batch", "/retrieve"])
async def test_what_a_web_page_could_send_unasked_is_refused(client, path, stated):
    bodies = {
        "/search": {"query": "kite"},
        "/search/batch": {"searches": [{"query": "kite"}]},
        "/retrieve": {"queries": ["kite"]},
    }
    reply = await client.post(
        path, content=json.dumps(bodies[path]), headers={"content-type": stated}
    )
    assert reply.status_code == 422


async def test_500_characters_after_stripping_are_allowed(client):
    assert (
        await client.post("/search", json={"query": "  " + "x" * 500 + "\n"})
    ).status_code == 200


async def test_large_bodies_are_refused_with_and_without_a_stated_length(client):
    async def chunks():
        for _ in range(3):
            yield b" " * (MAX_BODY_BYTES // 2)

    for content in (b" " * (MAX_BODY_BYTES + 1), chunks()):
        reply = await client.post(
            "/search", content=content, headers={"content-type": "application/json"}
        )
        assert reply.status_code == 413
        assert "larger than" in reply.json()["detail"]


async def test_a_collection_that_is_not_served_is_named(collections, serve):
    async with connected(serve(collections[:1])) as client:
        reply = await client.post("/search", json={"query": "kite", "kind": "image"})
    assert reply.status_code == 422
    assert reply.json()["detail"] == "this server has no image collection; it has: text"


async def test_a_bug_is_answered_without_telling_what_it_was_and_the_server_goes_on(
    client, encoder, monkeypatch, caplog
):
    def broken(texts, role=None, progress=None):
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
        raise OverloadedError()

    monkeypatch.setattr(Batcher, "submit", full)
    reply = await client.post("/search", json={"query": "kite"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    assert "try again" in reply.json()["detail"]


async def test_a_batch_answers_each_search_on_its_own_and_in_order(client, monkeypatch):
    submit = Batcher.submit

    async def picky(self, lookup):
        if lookup.queries == ("star",):
            raise OverloadedError()
        return await submit(self, lookup)

    monkeypatch.setattr(Batcher, "submit", picky)
    searches = [
        {"query": "kite", "top_k": 1},
        {"query": "star"},
        {"query": "crest of Nobody", "kind": "image", "top_k": 1},
    ]
    reply = await client.post("/search/batch", json={"searches": searches})
    kite, star, crest = reply.json()["results"]
    assert (reply.status_code, kite["status"], star["status"], crest["status"]) == (
        200,
        200,
        429,
        200,
    )
    alone = (await client.post("/search", json=searches[0])).json()
    assert kite["response"]["hits"] == alone["hits"]
    assert star["response"] is None
    assert "too many searches" in star["detail"]
    assert crest["response"]["hits"][0]["title"] == "crest of Nobody"


@pytest.mark.parametrize(
    "searches",
    [[], [{"query": "a"}] * 65, [{"query": "a", "top_k": 100}] * 6, [{"query": " "}]],
)
async def test_batches_out_of_bounds_are_refused(client, searches):
    assert (await client.post("/search/batch", json={"searches": searches})).status_code == 422


@pytest.mark.parametrize("where", ["header", "body"])
async def test_a_search_past_its_deadline_is_dropped_before_it_is_embedded(
    client, encoder, monkeypatch, where
):
    entered, gate = threading.Event(), threading.Event()
    encode = encoder.encode

    def slow(texts, role="query", progress=None):
        entered.set()
        assert gate.wait(10)
        return encode(texts)

    monkeypatch.setattr(encoder, "encode", slow)
    encoder.seen.clear()
    first = asyncio.create_task(client.post("/search", json={"query": "kite"}))
    await asyncio.to_thread(entered.wait, 10)
    body = {"query": "star"} | ({"deadline_s": 0.05} if where == "body" else {})
    late = await client.post(
        "/search", json=body, headers={"X-Deadline-S": "0.05" if where == "header" else "30"}
    )
    assert late.status_code == 504
    assert "deadline of 0.05 s" in late.json()["detail"]
    gate.set()
    assert (await first).status_code == 200
    assert (await client.post("/search", json={"query": "town"})).status_code == 200
    assert encoder.seen == [["kite"], ["town"]]


async def test_retrieve_honours_the_deadline_too(client, encoder, monkeypatch):
    gate = threading.Event()
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts: gate.wait(10) and encode(texts))
    reply = await client.post(
        "/retrieve", json={"queries": ["kite"]}, headers={"X-Deadline-S": "0.05"}
    )
    gate.set()
    assert reply.status_code == 504


@pytest.mark.parametrize("stated", ["soon", "0", "-1", "inf", "1e9"])
async def test_a_deadline_that_is_none_is_refused(client, stated):
    reply = await client.post("/search", json={"query": "kite"}, headers={"X-Deadline-S": stated})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("X-Deadline-S: ")


async def test_a_full_queue_is_429_and_not_ready(collections, serve, encoder, monkeypatch):
    entered, gate = threading.Event(), threading.Event()
    encode = encoder.encode
    app = serve(collections, max_waiting=1)

    def slow(texts, role="query", progress=None):
        entered.set()
        assert gate.wait(10)
        return encode(texts)

    async with connected(app) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        monkeypatch.setattr(encoder, "encode", slow)
        first = asyncio.create_task(client.post("/search", json={"query": "kite"}))
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.create_task(client.post("/search", json={"query": "star"}))
        while (await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0)
        third = await client.post("/search", json={"query": "town"})
        gate.set()
        assert (third.status_code, third.headers["retry-after"]) == (429, "1")
        assert [(await task).status_code for task in (first, second)] == [200, 200]
        assert (await client.get("/readyz")).status_code == 200


async def test_metrics_count_replies_batches_and_events_under_bounded_names(client):
    await client.post("/search", json={"query": "kite"})
    await client.post("/search", json={})
    for i in range(3):
        await client.get(f"/invented/{i}")
    shown = (await client.get("/metrics")).text
    assert 'search_requests_total{path="/search",status="200"} 1.0' in shown
    assert 'search_requests_total{path="/search",status="422"} 1.0' in shown
    assert 'search_requests_total{path="other",status="404"} 3.0' in shown
    assert "invented" not in shown
    assert "search_batch_queries_count 1.0" in shown
    assert 'search_events_total{event="searches"} 1.0' in shown
    assert "search_waiting 0.0" in shown
    assert "process_resident_memory_bytes" in shown


async def test_each_reply_bears_the_name_of_its_request(client):
    named = await client.post(
        "/search", json={"query": "kite"}, headers={"X-Request-Id": "run7.step-3_a"}
    )
    assert named.headers["x-request-id"] == "run7.step-3_a"
    forged = await client.get("/healthz", headers={"X-Request-Id": "a b\tc"})
    assert re.fullmatch("[0-9a-f]{32}", forged.headers["x-request-id"])


async def test_with_a_token_only_probes_are_open(collections, serve):
    async with connected(serve(collections, token="correct horse battery")) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 401
        for header in (
            "",
            "Bearer",
            "Bearer wrong",
            "correct horse battery",
            "bearer correct horse battery ",
        ):
            reply = await client.post(
                "/search", json={"query": "kite"}, headers={"Authorization": header}
            )
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        reply = await client.post(
            "/search",
            json={"query": "kite"},
            headers={"Authorization": "Bearer correct horse battery"},
        )
        assert reply.status_code == 200


async def test_a_bug_keeps_the_name_of_its_request(client, encoder, monkeypatch):
    monkeypatch.setattr(encoder, "encode", lambda texts: 1 / 0)
    reply = await client.post("/search", json={"query": "kite"}, headers={"X-Request-Id": "abc"})
    assert (reply.status_code, reply.headers["x-request-id"]) == (500, "abc")


@pytest.mark.parametrize("retriever", Retriever)
async def test_every_retriever_finds_what_shares_its_words(collections, serve, retriever):
    async with connected(serve(collections, retriever=retriever)) as client:
        hits = (
            await client.post("/search", json={"query": "painter born in Velmora", "top_k": 3})
        ).json()["hits"]
        assert hits[0]["title"] == "Tarn Oskel"
        nothing = (await client.post("/search", json={"query": "xylophone"})).json()["hits"]
        assert (nothing == []) == (retriever is Retriever.BM25)


async def test_the_documentation_page_is_served(client):
    assert "swagger" in (await client.get("/docs")).text.lower()
