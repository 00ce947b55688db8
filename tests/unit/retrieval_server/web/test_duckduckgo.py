"""DuckDuckGo through ddgs, whose addresses all lead to this machine."""

import asyncio
import html
from types import SimpleNamespace

import pytest

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import UnavailableError
from retrieval_server.web.duckduckgo import DuckDuckGo
from retrieval_server.web.provider import CallError

from .conftest import reply

TEXT, IMAGE = CollectionKind.TEXT, CollectionKind.IMAGE


async def ask(provider, kind=TEXT):
    return await provider.ask("who", kind, 3)


async def failure(provider, kind=TEXT) -> CallError:
    with pytest.raises(CallError) as raised:
        await ask(provider, kind)
    assert "\n" not in str(raised.value)
    return raised.value


DUCK_PAGE = """<html><body><div id="links">{results}</div></body></html>"""
DUCK_RESULT = """<div class="result results_links web-result">
<div class="links_main links_deep result__body">
<h2 class="result__title"><a class="result__a" href="{url}">{title}</a></h2>
<a class="result__snippet" href="{url}">{text}</a></div></div>"""


@pytest.fixture
def duck(local_server, monkeypatch):
    """The library asks its own addresses; here they all lead to the test's server."""
    import primp

    class Rewriting:
        def __init__(self, **options):
            self._client = primp.Client(timeout=options.get("timeout"))

        def headers_update(self, headers):
            pass

        def request(self, method, url, **options):
            host, _, rest = url.removeprefix("https://").partition("/")
            return self._client.request(method, f"{local_server.url}/{host}/{rest}", **options)

    monkeypatch.setattr(
        "ddgs.http_client.primp", SimpleNamespace(Client=Rewriting, TimeoutError=primp.TimeoutError)
    )
    return local_server


def duck_page(*hits):
    return DUCK_PAGE.format(
        results="".join(
            DUCK_RESULT.format(url=url, title=html.escape(title), text=html.escape(text))
            for title, text, url in hits
        )
    )


async def test_duckduckgo_text(duck):
    page = duck_page(
        ("Velmora", "A harbour <town>.", "https://a.example.com/1"),
        ("Quillon", "A team.", "https://b.example.com/2"),
    )
    duck.replies(reply(200, page, content_type="text/html"))
    first, second = await ask(DuckDuckGo())
    assert (first.title, first.url) == ("Velmora", "https://a.example.com/1")
    assert "harbour" in first.text
    assert second.title == "Quillon"
    (asked,) = duck.asked
    assert (asked.method, asked.path) == ("POST", "/html.duckduckgo.com/html/")
    assert b"q=who" in asked.body


async def test_duckduckgo_images(duck):
    entry = {
        "title": "Emblem",
        "image": "https://i.example.com/1.png",
        "thumbnail": "https://t.example.com/1",
        "url": "https://a.example.com/1",
    }
    images = {"results": [{**entry, "height": 9, "width": 9, "source": "Bing"}]}
    duck.answer = lambda asked: (
        reply(200, images)
        if asked.path.endswith("/i.js")
        else reply(200, 'vqd="4-123"', content_type="text/html")
    )
    (hit,) = await ask(DuckDuckGo(), IMAGE)
    assert (hit.title, hit.url) == ("Emblem", "https://a.example.com/1")
    assert hit.image_urls == ("https://i.example.com/1.png", "https://t.example.com/1")


async def test_duckduckgo_tells_nothing_found_from_being_turned_away(duck):
    duck.replies(
        reply(
            200,
            '<html><body><div class="no-results">No results.</div></body></html>',
            content_type="text/html",
        )
    )
    assert await ask(DuckDuckGo()) == []
    duck.replies(
        reply(
            200,
            "<html><body>Select all squares containing a duck</body></html>",
            content_type="text/html",
        )
    )
    assert isinstance((await failure(DuckDuckGo())).error, UnavailableError)


@pytest.mark.parametrize(
    ("status", "retryable"), [(202, True), (429, True), (500, True), (403, False), (301, False)]
)
@pytest.mark.parametrize("kind", CollectionKind)
async def test_duckduckgo_statuses(status, retryable, kind, duck):
    duck.answer = lambda asked: (
        reply(200, 'vqd="4-1"') if asked.path == "/duckduckgo.com/" else reply(status, "anomaly")
    )
    failed = await failure(DuckDuckGo(), kind)
    assert isinstance(failed.error, UnavailableError)
    assert failed.retryable is retryable
    assert (failed.error.retry_after_s > 0) == (status in (202, 429))


@pytest.mark.parametrize("kind", CollectionKind)
@pytest.mark.parametrize("body", [b"", b"\0\xff", b"<<<", b"{}x", b"[" * 5000])
async def test_duckduckgo_garbage(kind, body, duck):
    duck.answer = lambda asked: (
        reply(200, 'vqd="4-1"') if asked.path == "/duckduckgo.com/" else reply(200, body)
    )
    assert isinstance((await failure(DuckDuckGo(), kind)).error, UnavailableError)


async def test_duckduckgo_that_never_answers(duck):
    async def hang(asked):
        await asyncio.sleep(3)
        return b""

    duck.answer = hang
    failed = await failure(DuckDuckGo(timeout_s=1.0))
    assert failed.retryable
    assert "within 1 s" in str(failed)
