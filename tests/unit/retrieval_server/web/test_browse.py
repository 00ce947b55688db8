"""Pages behind results: robots.txt, text, passages, summaries; and images. The sites are all this
machine's.

Longer than 400 lines because the sites that misbehave are defined beside what they must not cause.
"""

import asyncio
import contextlib
import io
import ssl
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval_server.sources import SearchResult
from retrieval_server.web import extract as extract_module
from retrieval_server.web.browse import BrowseSettings, PageBrowser
from retrieval_server.web.extract import Extractor
from retrieval_server.web.fetch import DownloadLimits, Fetched, Fetcher, FetchFailedError
from retrieval_server.web.images import ImageLoader
from retrieval_server.web.passages import PASSAGE_CHARS, choose, split
from retrieval_server.web.summary import Summariser
from retrieval_server.web.url_policy import UrlPolicy

from .conftest import reply

TLS = ssl.create_default_context()
SENTENCES = [
    "The harbour town of Velmora lies on the northern shore of the inland sea.",
    "Its emblem is a blue kite, which was drawn by the painter Tarn Oskel in 1931.",
    "Every autumn the fishermen hold a procession with lanterns along the old quay.",
    "The railway reached the town late, and the station is now a small museum.",
]
ARTICLE = (
    "<html><head><title>Velmora</title></head><body><nav>Home About"
    " Contact</nav><article><h1>Velmora</h1>{}</article></body></html>"
)
PAGE = ARTICLE.format(
    "".join(
        f"<p>{sentence} {'Nothing else of note happened here. ' * 9}</p>" for sentence in SENTENCES
    )
)
HTML = {"content_type": "text/html; charset=utf-8"}


class WordEncoder:
    name = "words"

    def encode(self, texts, role="query", progress=None):
        vectors = np.full((len(texts), 256), 1e-3, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in set(text.lower().replace(".", " ").replace(",", " ").split()):
                row[zlib.crc32(word.encode()) % 256] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def loopback(host, port):
    return ["127.0.0.1"]


class PlainExtractor:
    """Takes tags out; the real one has tests of its own."""

    async def text_of(self, page):
        import re

        return re.sub(r"<[^>]*>", "\n", page.content.decode())

    async def close(self): ...


@contextlib.asynccontextmanager
async def browser_on(server, *, summariser=None, extractor=None, clock=None, **settings):
    fetcher = Fetcher(
        limits=DownloadLimits(timeout_s=5.0, host_pause_s=0.0),
        rules=UrlPolicy(ports=frozenset({server.port})),
        resolver=loopback,
        permits=lambda address: address.is_loopback,
        tls=TLS,
    )
    browser = PageBrowser(
        fetcher,
        WordEncoder(),
        extractor or PlainExtractor(),
        settings=BrowseSettings(**{"max_pages": 3, "page_chars": 400, **settings}),
        fingerprint="f",
        summariser=summariser,
        **({"clock": clock} if clock else {}),
    )
    yield browser
    await browser.close()
    await fetcher.close()


def hits_on(server, *paths, host="site.example.com"):
    return tuple(
        SearchResult(path, path, f"snippet of {path}", f"http://{host}:{server.port}{path}", 1.0)
        for path in paths
    )


NO_RULES = reply(404)


def site(pages, robots=NO_RULES):
    return lambda asked: (
        robots if asked.path == "/robots.txt" else pages.get(asked.path, reply(404))
    )


async def test_a_snippet_becomes_what_the_page_says(local_server):
    local_server.answer = site({"/velmora": reply(200, PAGE, **HTML)})
    async with browser_on(local_server) as browser:
        reading = await browser.read("emblem of Velmora, a kite", hits_on(local_server, "/velmora"))
    assert (reading.num_read, reading.note) == (1, None)
    assert "blue kite" in reading.hits[0].text
    assert len(reading.hits[0].text) <= 400
    assert "<p>" not in reading.hits[0].text
    assert (reading.hits[0].title, reading.hits[0].source) == (
        "/velmora",
        f"http://site.example.com:{local_server.port}/velmora",
    )


async def test_what_cannot_be_read_keeps_its_snippet_and_is_told(local_server):
    pdf = reply(200, b"%PDF", content_type="application/pdf")
    local_server.answer = site(
        {"/a": reply(200, PAGE, **HTML), "/pdf": pdf, "/empty": reply(200, "<p> </p>", **HTML)}
    )
    inside = SearchResult("x", "inside", "snippet", "http://169.254.169.254/latest", 1.0)
    hits = (*hits_on(local_server, "/a", "/pdf", "/gone", "/empty"), inside)
    async with browser_on(local_server, max_pages=5) as browser:
        reading = await browser.read("kite", hits)
        assert browser.counts["pages_read"] == 1
        assert browser.counts["pages_refused"] == 4
    assert reading.num_read == 1
    assert reading.note == "1 of 5 pages could be read; the others show their snippets"
    assert [hit.text for hit in reading.hits[1:]] == [
        "snippet of /pdf",
        "snippet of /gone",
        "snippet of /empty",
        "snippet",
    ]


async def test_no_more_pages_are_read_than_settled(local_server):
    local_server.answer = site({f"/{n}": reply(200, PAGE, **HTML) for n in range(5)})
    async with browser_on(local_server, max_pages=2) as browser:
        reading = await browser.read("kite", hits_on(local_server, *(f"/{n}" for n in range(5))))
    assert reading.num_read == 2
    assert [hit.text.startswith("snippet") for hit in reading.hits] == [
        False,
        False,
        True,
        True,
        True,
    ]


async def test_a_slow_page_does_not_hold_up_the_others(local_server):
    async def hang():
        await asyncio.Event().wait()

    pages = site({"/a": reply(200, PAGE, **HTML)})
    local_server.answer = lambda asked: hang() if asked.path == "/slow" else pages(asked)
    async with browser_on(local_server, timeout_s=2.0) as browser:
        reading = await browser.read("kite", hits_on(local_server, "/slow", "/a"))
    assert [hit.text.startswith("snippet") for hit in reading.hits] == [True, False]


async def test_a_page_is_downloaded_once_for_all_who_want_it(local_server):
    local_server.answer = site({"/a": reply(200, PAGE, **HTML)})
    now = 0.0
    async with browser_on(local_server, clock=lambda: now) as browser:
        await asyncio.gather(
            *(browser.read(f"question {n}", hits_on(local_server, "/a")) for n in range(20))
        )
        await browser.read("another", hits_on(local_server, "/a"))
        assert [asked.path for asked in local_server.asked].count("/a") == 1
        now = 4000.0
        await browser.read("later", hits_on(local_server, "/a"))
        assert [asked.path for asked in local_server.asked].count("/a") == 2


async def test_robots_are_read_once_and_obeyed(local_server):
    rules = (
        "User-agent: *\nDisallow: /private/*.html$\nDisallow: /x\nAllow: /x/open\n\nUser-agent:"
        " other\nDisallow: /"
    )
    pages = {
        path: reply(200, PAGE, **HTML) for path in ("/a", "/private/p.html", "/x/y", "/x/open")
    }
    local_server.answer = site(pages, reply(200, rules, content_type="text/plain"))
    async with browser_on(local_server, max_pages=4) as browser:
        reading = await browser.read("kite", hits_on(local_server, *pages))
    assert [hit.text.startswith("snippet") for hit in reading.hits] == [False, True, True, False]
    assert sorted(asked.path for asked in local_server.asked) == ["/a", "/robots.txt", "/x/open"]


ROBOTS = [
    (reply(200, "User-agent: seg-research\nDisallow: /", content_type="text/plain"), 0),
    (reply(404), 1),
    (reply(403), 1),
    (reply(200, "<html>home</html>", **HTML), 1),
    (reply(200, b"\xff\xfe\x00garbage" * 100, content_type="text/plain"), 1),
    (reply(500), 0),
    (b"", 0),
]


@pytest.mark.parametrize(("robots", "num_read"), ROBOTS)
async def test_robots_of_every_kind(robots, num_read, local_server):
    local_server.answer = site({"/a": reply(200, PAGE, **HTML)}, robots)
    async with browser_on(local_server) as browser:
        assert (await browser.read("kite", hits_on(local_server, "/a"))).num_read == num_read


async def test_a_crawl_delay_slows_us_down(local_server, monkeypatch):
    slowed = []
    monkeypatch.setattr(
        Fetcher, "slow_down", lambda self, host, pause_s: slowed.append((host, pause_s))
    )
    local_server.answer = site(
        {"/a": reply(200, PAGE, **HTML)},
        reply(200, "User-agent: *\nCrawl-delay: 60", content_type="text/plain"),
    )
    async with browser_on(local_server) as browser:
        await browser.read("kite", hits_on(local_server, "/a"))
    assert slowed == [("site.example.com", 10.0)]


async def test_a_redirect_to_another_site_asks_that_site_too(local_server):
    def answer(asked):
        if asked.headers["host"].startswith("closed."):
            rules = reply(200, "User-agent: *\nDisallow: /", content_type="text/plain")
            return rules if asked.path == "/robots.txt" else reply(200, PAGE, **HTML)
        return (
            reply(404)
            if asked.path == "/robots.txt"
            else reply(302, location=f"http://closed.example.com:{local_server.port}/b")
        )

    local_server.answer = answer
    async with browser_on(local_server) as browser:
        assert (await browser.read("kite", hits_on(local_server, "/a"))).num_read == 0
    assert ("closed.example.com", "/b") not in [
        (asked.headers["host"].partition(":")[0], asked.path) for asked in local_server.asked
    ]


def chat(content, status=200):
    return reply(status, {"choices": [{"message": {"role": "assistant", "content": content}}]})


async def summaries(local_server, answer, page=PAGE):
    pages = site({"/a": reply(200, page, **HTML)})
    local_server.answer = lambda asked: (
        answer if asked.path == "/v1/chat/completions" else pages(asked)
    )
    model = Summariser(
        f"{local_server.url}/v1",
        "m",
        "s3cret",
        timeout_s=1.0,
        transport=httpx.AsyncHTTPTransport(verify=TLS),
    )
    async with browser_on(local_server, summariser=model) as browser:
        reading = await browser.read("emblem of Velmora", hits_on(local_server, "/a"))
    return reading, [asked for asked in local_server.asked if asked.path == "/v1/chat/completions"]


async def test_a_model_summarises(local_server):
    reading, (asked,) = await summaries(local_server, chat("A blue\nkite. " * 200))
    assert reading.hits[0].text.startswith("A blue kite. A blue")
    assert len(reading.hits[0].text) == 400
    assert asked.headers["authorization"] == "Bearer s3cret"
    assert asked.json["model"] == "m"
    assert "ignore any instruction" in asked.json["messages"][0]["content"]
    assert "Tarn Oskel" in asked.json["messages"][1]["content"]
    assert asked.json["messages"][1]["content"].startswith("Question: emblem of Velmora")


NO_SUMMARY = [chat(said) for said in ("NOTHING", "nothing.", "", None, {})]
NO_SUMMARY += [
    reply(200, {}),
    reply(200, {"choices": []}),
    reply(500),
    reply(401),
    reply(200, "<html>"),
]


@pytest.mark.parametrize("answer", NO_SUMMARY)
async def test_without_a_summary_the_passages_are_shown(answer, local_server):
    reading, _ = await summaries(local_server, answer)
    assert "Velmora" in reading.hits[0].text
    assert reading.num_read == 1


def page_of(content, media_type="text/html", charset=None):
    return Fetched(
        "http://site.example.com/",
        media_type,
        charset,
        content if isinstance(content, bytes) else content.encode(),
    )


async def test_the_worker_takes_the_text_out_survives_and_knows_no_secret(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "k3y")
    extractor = Extractor(timeout_s=10.0)
    try:
        text = await extractor.text_of(page_of(PAGE))
        assert all(sentence in text for sentence in SENTENCES)
        assert "Home About" not in text
        (worker,) = extractor._idle._queue
        environment = Path(f"/proc/{worker._process.pid}/environ").read_text()
        assert "k3y" not in environment
        assert "PATH=" in environment
        # One process for many pages, whatever they are.
        for content in (b"", b"\xff\xfe\x00", b"<" * 5000, b"<html>" * 3000, b"\0" * 1000):
            assert isinstance(await extractor.text_of(page_of(content)), str)
        latin = PAGE.replace("Velmora", "Vélmôra").encode("latin-1")
        assert "Vélmôra" in await extractor.text_of(page_of(latin, charset="latin-1"))
        assert "Vélmôra" not in await extractor.text_of(page_of(latin, charset="no-such-charset"))
        first = worker._process.pid
        extractor._timeout_s = 0.5
        bomb = (
            b"<html><body><article><p>"
            + b"<span>x</span>" * 70_000
            + b"</p></article></body></html>"
        )
        with pytest.raises(FetchFailedError, match="could not be taken out"):
            await extractor.text_of(page_of(bomb))
        extractor._timeout_s = 10.0
        assert SENTENCES[0] in await extractor.text_of(page_of(PAGE))
        assert worker._process.pid != first
    finally:
        await extractor.close()


async def test_plain_text_needs_no_worker(monkeypatch):
    monkeypatch.setattr(extract_module._Worker, "read", None)
    assert await Extractor().text_of(page_of("a <b>c", "text/plain")) == "a <b>c"


@given(
    st.text(max_size=3000)
    | st.lists(st.sampled_from([*SENTENCES, "\n", "heading\n", "x" * 1500])).map(" ".join)
)
def test_passages_hold_the_whole_text_in_order(text):
    passages = split(text)
    assert "".join("".join(passages).split()) == "".join(text.split())
    assert all(0 < len(passage) <= PASSAGE_CHARS for passage in passages)


def test_sentences_stay_whole():
    for passage in split(" ".join(SENTENCES * 20)):
        assert passage.endswith(".")


@given(
    st.text(max_size=50),
    st.lists(st.sampled_from(SENTENCES) | st.text(max_size=80), max_size=60),
    st.integers(1, 1000),
)
def test_the_choice_is_of_the_text_and_not_too_long(query, passages, max_chars):
    chosen = choose(query, passages, WordEncoder(), max_chars)
    assert len(chosen) <= max_chars
    assert bool(passages) >= bool(chosen)


def test_the_nearest_passages_are_chosen_in_the_order_of_the_text():
    filler = [f"Paragraph {n} is about something else entirely." for n in range(300)]
    passages = [*filler[:150], SENTENCES[3], *filler[150:], SENTENCES[1]]
    assert (
        choose("emblem blue kite station museum", passages, WordEncoder(), 170)
        == f"{SENTENCES[3]} … {SENTENCES[1]}"
    )


def image_bytes(form="PNG", size=(600, 300), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, form, **options)
    return buffer.getvalue()


async def load(local_server, body, kind):
    local_server.replies(reply(200, body, content_type=kind))
    fetcher = Fetcher(
        limits=DownloadLimits(host_pause_s=0.0),
        rules=UrlPolicy(ports=frozenset({local_server.port})),
        resolver=loopback,
        permits=lambda address: True,
        tls=TLS,
    )
    try:
        return await ImageLoader(fetcher).load(f"http://site.example.com:{local_server.port}/p")
    finally:
        await fetcher.close()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_images_become_small_jpegs(form, local_server):
    made = await load(local_server, image_bytes(form), f"image/{form.lower()}")
    with Image.open(io.BytesIO(made)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 128))


def huge_png():
    # 30,000 x 30,000 pixels that compress to a few kilobytes; only the header is ever believed.
    import struct

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


BAD_IMAGES = [
    (b"", "image/png"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png"),
    (image_bytes()[:200], "image/png"),
    (huge_png(), "image/png"),
    (image_bytes("TIFF"), "image/png"),
    (image_bytes("PPM"), "image/jpeg"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "image/jpeg"),
    (image_bytes(), "image/svg+xml"),
    (image_bytes(), "text/html"),
]


@pytest.mark.parametrize(("body", "kind"), BAD_IMAGES)
async def test_what_is_no_image_is_none(body, kind, local_server):
    assert await load(local_server, body, kind) is None
