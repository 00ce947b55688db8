"""Each provider against a server that speaks its documented format, and fails in every documented
way and some others.

Longer than 400 lines because each provider comes with the server that plays it.
"""

import asyncio
import json
import ssl

import httpx
import pytest

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import (
    BudgetExhaustedError,
    QueryError,
    RefusedError,
    UnavailableError,
)
from retrieval_server.web.provider import MAX_REPLY_BYTES, CallError, KeyRefusedError
from retrieval_server.web.searxng import Searxng
from retrieval_server.web.serper import Serper
from retrieval_server.web.tavily import Tavily

from .conftest import reply

TEXT, IMAGE = CollectionKind.TEXT, CollectionKind.IMAGE
TLS = ssl.create_default_context()  # Made once: it takes 20 ms.
KEY = "k3y-that-must-not-leak"

SERPER_TEXT = {
    "searchParameters": {
        "q": "who",
        "gl": "us",
        "hl": "en",
        "num": 3,
        "type": "search",
        "engine": "google",
    },
    "knowledgeGraph": {"title": "Velmora", "type": "Town"},
    "organic": [
        {
            "title": "Velmora",
            "link": "https://a.example.com/1",
            "snippet": "A harbour\ntown.",
            "date": "2 Jan 2025",
            "position": 1,
        },
        {
            "title": "Quillon",
            "link": "https://b.example.com/2",
            "snippet": "A team.",
            "sitelinks": [],
            "position": 2,
        },
    ],
    "peopleAlsoAsk": [],
    "credits": 1,
}
SERPER_IMAGES = {
    "searchParameters": {"q": "who", "type": "images"},
    "images": [
        {
            "title": "Emblem",
            "imageUrl": "https://img.example.com/1.png",
            "imageWidth": 640,
            "imageHeight": 480,
            "thumbnailUrl": "https://thumb.example.com/1",
            "source": "Example",
            "domain": "a.example.com",
            "link": "https://a.example.com/1",
            "position": 1,
        }
    ],
    "credits": 1,
}
TAVILY = {
    "query": "who",
    "follow_up_questions": None,
    "answer": None,
    "images": [{"url": "https://img.example.com/1.png", "description": "Emblem"}],
    "results": [
        {
            "title": "Velmora",
            "url": "https://a.example.com/1",
            "content": "A harbour town.",
            "score": 0.87,
            "raw_content": None,
        },
        {
            "title": "Quillon",
            "url": "https://b.example.com/2",
            "content": "A team.",
            "score": 0.5,
            "raw_content": None,
        },
    ],
    "response_time": 1.1,
}
SEARXNG_TEXT = {
    "query": "who",
    "number_of_results": 0,
    "results": [
        {
            "url": "https://a.example.com/1",
            "title": "Velmora",
            "content": "A harbour town.",
            "engine": "x",
            "score": 4.0,
            "category": "general",
        },
        {
            "url": "https://b.example.com/2",
            "title": "Quillon",
            "content": "A team.",
            "engine": "y",
            "score": 1.0,
        },
        {
            "url": "https://c.example.com/3",
            "title": "Third",
            "content": "",
            "engine": "y",
            "category": "general",
        },
    ],
    "answers": [],
    "corrections": [],
    "infoboxes": [],
    "suggestions": [],
    "unresponsive_engines": [["z", "timeout"]],
}
SEARXNG_IMAGES = {
    "results": [
        {
            "url": "https://a.example.com/1",
            "title": "Emblem",
            "img_src": "//img.example.com/1.png",
            "thumbnail_src": "https://thumb.example.com/1",
            "template": "images.html",
        }
    ]
}


def serper(server, **options):
    return Serper(server.url, KEY, transport=httpx.AsyncHTTPTransport(verify=TLS), **options)


def tavily(server, **options):
    return Tavily(server.url, KEY, transport=httpx.AsyncHTTPTransport(verify=TLS), **options)


def searxng(server, **options):
    return Searxng(server.url, transport=httpx.AsyncHTTPTransport(verify=TLS), **options)


async def ask(provider, kind=TEXT, num=3, query="who"):
    try:
        return await provider.ask(query, kind, num)
    finally:
        await provider.close()


async def failure(provider, kind=TEXT) -> CallError:
    with pytest.raises(CallError) as raised:
        await ask(provider, kind)
    assert KEY not in str(raised.value) + repr(raised.value) + str(raised.value.error)
    assert "\n" not in str(raised.value)
    return raised.value


async def test_serper_text(local_server):
    local_server.replies(reply(200, SERPER_TEXT))
    first, second = await ask(serper(local_server))
    assert (first.title, first.text, first.url, first.image_urls) == (
        "Velmora",
        "A harbour town.",
        "https://a.example.com/1",
        (),
    )
    assert first.score > second.score
    (asked,) = local_server.asked
    assert (asked.method, asked.target, asked.json) == (
        "POST",
        "/search",
        {"q": "who", "hl": "en", "gl": "us", "num": 3},
    )
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["accept-encoding"] == "identity"


async def test_serper_asks_for_chinese_in_chinese(local_server):
    local_server.replies(reply(200, SERPER_TEXT))
    await ask(serper(local_server), query="谁导演了芭比")
    assert (local_server.asked[0].json["hl"], local_server.asked[0].json["gl"]) == ("zh-cn", "cn")


async def test_serper_images(local_server):
    local_server.replies(reply(200, SERPER_IMAGES))
    (hit,) = await ask(serper(local_server), IMAGE)
    assert (hit.title, hit.url) == ("Emblem", "https://a.example.com/1")
    assert hit.image_urls == ("https://img.example.com/1.png", "https://thumb.example.com/1")
    assert local_server.asked[0].target == "/images"


async def test_tavily_text(local_server):
    local_server.replies(reply(200, TAVILY))
    first, _ = await ask(tavily(local_server))
    assert (first.title, first.text, first.url, first.score) == (
        "Velmora",
        "A harbour town.",
        "https://a.example.com/1",
        0.87,
    )
    (asked,) = local_server.asked
    assert (asked.method, asked.target) == ("POST", "/search")
    assert asked.json == {"query": "who", "search_depth": "basic", "max_results": 3}
    assert asked.headers["authorization"] == f"Bearer {KEY}"


async def test_tavily_images(local_server):
    local_server.replies(reply(200, TAVILY))
    (hit,) = await ask(tavily(local_server), IMAGE)
    assert (hit.title, hit.image_urls) == ("Emblem", ("https://img.example.com/1.png",))
    assert local_server.asked[0].json["include_images"] is True
    assert local_server.asked[0].json["include_image_descriptions"] is True


async def test_searxng_text(local_server):
    local_server.replies(reply(200, SEARXNG_TEXT))
    hits = await ask(searxng(local_server), num=2, query="who & what")
    assert [(hit.title, hit.score) for hit in hits] == [("Velmora", 4.0), ("Quillon", 1.0)]
    (asked,) = local_server.asked
    assert (asked.method, asked.target) == (
        "GET",
        "/search?q=who+%26+what&format=json&categories=general",
    )


async def test_searxng_images(local_server):
    local_server.replies(reply(200, SEARXNG_IMAGES))
    (hit,) = await ask(searxng(local_server), IMAGE)
    assert hit.image_urls == ("https://img.example.com/1.png", "https://thumb.example.com/1")
    assert "categories=images" in local_server.asked[0].target


async def test_searxng_under_a_path(local_server):
    local_server.replies(reply(200, SEARXNG_TEXT))
    await ask(Searxng(local_server.url + "/searxng/"))
    assert local_server.asked[0].path == "/searxng/search"


async def test_searxng_whose_engines_are_silent_has_not_found_nothing(local_server):
    local_server.replies(
        reply(200, {"results": [], "unresponsive_engines": [["google", "Suspended: CAPTCHA"]]})
    )
    failed = await failure(searxng(local_server))
    assert isinstance(failed.error, UnavailableError)
    assert "CAPTCHA" in str(failed)
    local_server.replies(reply(200, {"results": [], "unresponsive_engines": []}))
    assert await ask(searxng(local_server)) == []


async def test_searxng_without_json_says_what_to_change(local_server):
    local_server.replies(reply(403, "Forbidden"))
    failed = await failure(searxng(local_server))
    assert "search.formats" in str(failed)
    assert not failed.retryable


FOUND_NOTHING = [
    (serper, {"organic": []}),
    (serper, {}),
    (tavily, {"results": []}),
    (searxng, {"results": []}),
]


@pytest.mark.parametrize(("make", "body"), FOUND_NOTHING)
async def test_nothing_found_is_an_answer(make, body, local_server):
    local_server.replies(reply(200, body))
    assert await ask(make(local_server)) == []


ALL = pytest.mark.parametrize("make", [serper, tavily, searxng])
KEYED = pytest.mark.parametrize("make", [serper, tavily])


@KEYED
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key(make, status, local_server):
    local_server.replies(
        reply(status, {"message": f"Unauthorized: {KEY} is unknown.", "statusCode": status})
    )
    failed = await failure(make(local_server))
    assert isinstance(failed.error, KeyRefusedError)
    assert (failed.retryable, failed.billed) == (False, False)
    assert "*** is unknown" in str(failed)


NO_CREDIT = [
    (serper, reply(400, {"message": "Not enough credits", "statusCode": 400})),
    (serper, reply(402, {"message": "Payment required"})),
    (
        tavily,
        reply(432, {"detail": {"error": "This request exceeds your plan's set usage limit."}}),
    ),
    (tavily, reply(433, {"detail": {"error": "This request exceeds the pay-as-you-go limit."}})),
    (searxng, reply(402, b"")),
]


@pytest.mark.parametrize(("make", "raw"), NO_CREDIT)
async def test_an_account_without_credit_is_an_exhausted_budget(make, raw, local_server):
    local_server.replies(raw)
    failed = await failure(make(local_server))
    assert isinstance(failed.error, BudgetExhaustedError)
    assert (failed.retryable, failed.billed) == (False, False)


@ALL
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_query_that_is_not_understood(make, status, local_server):
    local_server.replies(reply(status, {"message": "Bad query"}))
    failed = await failure(make(local_server))
    assert isinstance(failed.error, QueryError)
    assert not failed.retryable


@ALL
async def test_too_many_requests(make, local_server):
    local_server.replies(reply(429, {"message": "slow down"}, retry_after="7"))
    failed = await failure(make(local_server))
    assert (failed.retryable, failed.billed, failed.error.retry_after_s) == (True, False, 7.0)


@ALL
@pytest.mark.parametrize("stated", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "nan", "9" * 40, ""])
async def test_a_strange_retry_after_is_ignored(make, stated, local_server):
    local_server.replies(reply(429, b"", retry_after=stated))
    assert (await failure(make(local_server))).error.retry_after_s == 0.0


@ALL
@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_trouble_over_there(make, status, local_server):
    local_server.replies(reply(status, "<html>Bad gateway</html>", content_type="text/html"))
    failed = await failure(make(local_server))
    assert isinstance(failed.error, UnavailableError)
    assert (failed.retryable, failed.billed) == (True, False)
    assert "<html>" not in str(failed)


@ALL
@pytest.mark.parametrize("status", [204, 301, 302, 307, 404, 405])
async def test_another_address_is_not_followed(make, status, local_server):
    local_server.replies(reply(status, b"", location=local_server.url + "/elsewhere"))
    failed = await failure(make(local_server))
    assert isinstance(failed.error, RefusedError)
    assert "address" in str(failed)
    assert len(local_server.asked) == 1


BROKEN = [
    b"",
    b"<html><body>Sign in to the hotel's network</body></html>",
    json.dumps(SERPER_TEXT).encode()[:-20],
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"organic": 5, "results": 5, "images": 5}',
    b'{"organic": {"a": 1}, "results": {"a": 1}, "images": "x"}',
]


@ALL
@pytest.mark.parametrize("kind", CollectionKind)
@pytest.mark.parametrize("body", BROKEN)
async def test_an_unreadable_reply_is_billed_and_not_asked_for_again(
    make, kind, body, local_server
):
    local_server.replies(reply(200, body, content_type="text/html"))
    failed = await failure(make(local_server), kind)
    assert isinstance(failed.error, UnavailableError)
    assert (failed.retryable, failed.billed) == (False, True)


@ALL
@pytest.mark.parametrize("kind", CollectionKind)
async def test_strange_entries_are_survived(make, kind, local_server):
    entries = [
        None,
        5,
        "x",
        [],
        {},
        {
            "title": 5,
            "link": ["x"],
            "url": {},
            "snippet": None,
            "content": 7,
            "score": "high",
            "imageUrl": 3,
            "img_src": None,
        },
        {
            "title": "\ud800 a\x00b",
            "link": "javascript:alert(1)",
            "url": "file:///etc/passwd",
            "imageUrl": "data:x",
            "score": float("1e999"),
        },
        {
            "title": "t" * 10_000,
            "snippet": "s" * 100_000,
            "content": "s" * 100_000,
            "url": "http://a/" + "x" * 5_000,
            "score": True,
        },
    ]
    body = json.dumps({"organic": entries, "results": entries, "images": entries}).encode()
    local_server.replies(reply(200, body, content_type="application/json"))
    for hit in await ask(make(local_server), kind, num=20):
        assert len(hit.title) <= 300
        assert len(hit.text) <= 2_000
        assert hit.score == hit.score < float("inf")
        for address in (hit.url, *hit.image_urls):
            assert address == "" or address.startswith(("http://", "https://"))
        (hit.title + hit.text).encode("utf-8")


@ALL
async def test_slow_bytes(make, local_server):
    async def drip(asked):
        yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    local_server.answer = drip
    failed = await failure(make(local_server, timeout_s=0.2))
    assert "no answer within 0.2 s" in str(failed)
    assert (failed.retryable, failed.billed) == (True, True)


@ALL
async def test_a_connection_that_breaks(make, local_server):
    local_server.replies(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
    failed = await failure(make(local_server))
    assert (failed.retryable, failed.billed) == (True, True)


@ALL
async def test_nobody_there(make, local_server):
    local_server.port = 9  # discard; nobody listens
    failed = await failure(make(local_server))
    assert "cannot be reached" in str(failed)
    assert (failed.retryable, failed.billed) == (True, False)


@ALL
async def test_an_endless_reply_is_cut_off(make, local_server):
    async def endless(asked):
        yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
        while True:
            yield b" " * (1 << 18)

    local_server.answer = endless
    assert f"larger than {MAX_REPLY_BYTES} bytes" in str(await failure(make(local_server)))


@KEYED
async def test_the_check_costs_no_search(make, local_server):
    local_server.replies(reply(200, {"balance": 5}))
    provider = make(local_server)
    await provider.check()
    await provider.close()
    (asked,) = local_server.asked
    assert (asked.method, asked.target) in {("GET", "/account"), ("GET", "/usage")}
