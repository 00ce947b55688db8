"""Downloads from a server that is permitted, with every limit in turn."""

import asyncio
import contextlib
import gzip
import ssl
import zlib

import pytest

from retrieval_server.web.fetch import (
    IMAGE_TYPES,
    PAGE_TYPES,
    DownloadLimits,
    Fetcher,
    FetchFailedError,
)
from retrieval_server.web.url_policy import FetchRefusedError, UrlPolicy

from .conftest import reply

PAGE = {"content_type": "text/html; charset=utf-8"}
TLS = ssl.create_default_context()


async def loopback(host, port):
    return ["127.0.0.1"]


@contextlib.asynccontextmanager
async def fetcher_for(server, **limits):
    fetcher = Fetcher(
        limits=DownloadLimits(**{"timeout_s": 5.0, "host_pause_s": 0.0, **limits}),
        rules=UrlPolicy(ports=frozenset({80, server.port})),
        resolver=loopback,
        permits=lambda address: address.is_loopback,
        tls=TLS,
    )
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def fetch(
    server,
    path="/",
    *,
    accept=PAGE_TYPES,
    max_bytes=None,
    cut=False,
    allow=None,
    host="site.example.com",
    **limits,
):
    async with fetcher_for(server, **limits) as fetcher:
        return await fetcher.fetch(
            f"http://{host}:{server.port}{path}",
            accept=accept,
            max_bytes=max_bytes,
            cut=cut,
            allow=allow,
        )


async def test_a_page_is_fetched_under_its_own_name(local_server):
    local_server.replies(reply(200, "<p>hello", **PAGE))
    page = await fetch(local_server, "/a%20b?q=1#part")
    assert (page.content, page.media_type, page.charset) == (b"<p>hello", "text/html", "utf-8")
    (asked,) = local_server.asked
    assert (asked.method, asked.target) == ("GET", "/a%20b?q=1")
    assert asked.headers["host"] == f"site.example.com:{local_server.port}"
    assert asked.headers["user-agent"].startswith("seg-research/")
    assert not {"cookie", "referer", "authorization"} & asked.headers.keys()


async def test_redirects_are_followed_and_counted(local_server):
    local_server.answer = lambda asked: (
        reply(200, "there", **PAGE)
        if asked.target == "/3"
        else reply(302, location=f"/{int(asked.target[1:]) + 1}")
    )
    page = await fetch(local_server, "/0")
    assert page.content == b"there"
    assert page.url.endswith("/3")
    with pytest.raises(FetchRefusedError, match="more than 2 redirects"):
        await fetch(local_server, "/0", max_redirects=2)


async def test_a_redirect_to_itself_ends(local_server):
    local_server.replies(reply(301, location="/"))
    with pytest.raises(FetchRefusedError, match="more than 4 redirects"):
        await fetch(local_server)
    assert len(local_server.asked) == 5


async def test_a_redirect_goes_to_another_permitted_host(local_server):
    local_server.answer = lambda asked: (
        reply(200, "there", **PAGE)
        if asked.headers["host"].startswith("other.")
        else reply(302, location=f"//other.example.com:{local_server.port}/")
    )
    assert (await fetch(local_server)).content == b"there"


@pytest.mark.parametrize("status", [204, 206, 400, 401, 403, 404, 410, 304])
async def test_a_page_that_is_not_there_is_refused(status, local_server):
    local_server.replies(reply(status, **PAGE))
    with pytest.raises(FetchRefusedError, match=f"HTTP {status}"):
        await fetch(local_server)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_site_in_trouble_is_a_failure(status, local_server):
    local_server.replies(reply(status, **PAGE))
    with pytest.raises(FetchFailedError, match=f"HTTP {status}"):
        await fetch(local_server)


@pytest.mark.parametrize(
    "kind",
    [
        "application/pdf",
        "image/svg+xml",
        "application/octet-stream",
        "text/html2",
        "",
        "video/mp4",
        ";",
    ],
)
async def test_other_media_types_are_refused_unread(kind, local_server):
    async def body(asked):
        yield (
            b"HTTP/1.1 200 OK\r\ncontent-type: "
            + kind.encode()
            + b"\r\ncontent-length: 9999999\r\n\r\n"
        )
        await asyncio.Event().wait()

    local_server.answer = body
    with pytest.raises(FetchRefusedError, match="content type"):
        await fetch(local_server)


async def test_an_image_is_no_page(local_server):
    local_server.replies(reply(200, b"\xff\xd8", content_type="image/jpeg"))
    with pytest.raises(FetchRefusedError, match="content type"):
        await fetch(local_server)
    assert (await fetch(local_server, accept=IMAGE_TYPES)).media_type == "image/jpeg"


async def test_what_is_too_large_is_refused_or_cut(local_server):
    local_server.replies(reply(200, b"x" * 1001, **PAGE))
    with pytest.raises(FetchRefusedError, match="larger than 1000 bytes"):
        await fetch(local_server, max_bytes=1000)
    assert (await fetch(local_server, max_bytes=1000, cut=True)).content == b"x" * 1000
    assert (await fetch(local_server, max_bytes=1001)).content == b"x" * 1001


async def test_an_endless_page_is_cut_off(local_server):
    sent = 0

    async def endless(asked):
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n"
        while True:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    local_server.answer = endless
    with pytest.raises(FetchRefusedError, match="larger than"):
        await fetch(local_server, max_bytes=1 << 20)
    assert sent < 32 << 20  # what fits into the buffers of two sockets


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_compressed_pages_are_unpacked(pack, local_server):
    text = b"all work and no play " * 5000
    encoding = "gzip" if pack is gzip.compress else "deflate"
    local_server.replies(reply(200, pack(text), content_encoding=encoding, **PAGE))
    assert (await fetch(local_server)).content == text
    assert local_server.asked[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_compressed_bomb_is_not_unpacked(pack, local_server, monkeypatch):
    import retrieval_server.web.fetch as module

    bomb = pack(b"\0" * (20 << 20))
    unpacked = []
    original = module._unpacker

    def watched(encoding):
        unpack = original(encoding)

        def counting(chunk, max_bytes):
            out = unpack(chunk, max_bytes)
            unpacked.append(len(out))
            return out

        return counting

    monkeypatch.setattr(module, "_unpacker", watched)
    local_server.replies(
        reply(200, bomb, content_encoding="gzip" if pack is gzip.compress else "deflate", **PAGE)
    )
    with pytest.raises(FetchRefusedError, match="larger than"):
        await fetch(local_server, max_bytes=1 << 20)
    assert sum(unpacked) == (1 << 20) + 1


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x"])
async def test_encodings_that_were_not_asked_for_are_refused(encoding, local_server):
    local_server.replies(reply(200, b"??", content_encoding=encoding, **PAGE))
    with pytest.raises(FetchRefusedError, match="content encoding"):
        await fetch(local_server)


async def test_damaged_compression_is_refused(local_server):
    local_server.replies(reply(200, b"this is no gzip", content_encoding="gzip", **PAGE))
    with pytest.raises(FetchRefusedError, match="damaged compression"):
        await fetch(local_server)


async def test_slow_bytes_end_with_the_time(local_server):
    async def drip(asked):
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n"
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    local_server.answer = drip
    with pytest.raises(FetchFailedError, match=r"not complete within 0\.2 s"):
        await fetch(local_server, timeout_s=0.2)


async def test_slow_redirects_share_the_time(local_server):
    async def slow(asked):
        await asyncio.sleep(0.1)
        return reply(302, location="/")

    local_server.answer = slow
    with pytest.raises(FetchFailedError, match="not complete within"):
        await fetch(local_server, timeout_s=0.25, max_redirects=100)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ncontent-type: text/html\r\n\r\nshort",
        b"\0" * 99,
    ],
)
async def test_broken_servers_are_failures(raw, local_server):
    local_server.replies(raw)
    with pytest.raises(FetchFailedError):
        await fetch(local_server)


async def test_headers_without_end_are_a_failure(local_server):
    async def endless(asked):
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"x-a: " + b"y" * 4096 + b"\r\n"

    local_server.answer = endless
    with pytest.raises(FetchFailedError):
        await fetch(local_server)


async def test_tls_is_asked_for_under_the_name(monkeypatch, local_server):
    asked_for = []

    async def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        asked_for.append(server_hostname)
        raise OSError("enough")

    monkeypatch.setattr("httpcore._backends.anyio.AnyIOStream.start_tls", start_tls)
    async with fetcher_for(local_server) as fetcher:
        with pytest.raises(FetchFailedError):
            await fetcher.fetch(f"https://site.example.com:{local_server.port}/", accept=PAGE_TYPES)
    assert asked_for == ["site.example.com"]


async def test_one_host_is_asked_by_two_at_once_at_most(local_server):
    async def slowly(asked):
        await asyncio.sleep(0.01)
        return reply(200, "x", **PAGE)

    local_server.answer = slowly
    async with fetcher_for(local_server) as fetcher:
        await asyncio.gather(
            *(
                fetcher.fetch(f"http://a.example.com:{local_server.port}/{n}", accept=PAGE_TYPES)
                for n in range(8)
            )
        )
    assert local_server.most_at_once == 2


async def test_one_host_is_given_pauses_and_another_is_not_held_up(local_server, monkeypatch):
    import retrieval_server.web.fetch as module

    waits = []

    async def sleep(seconds):
        waits.append(round(seconds, -2))  # a busy machine is late by seconds, not by minutes

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    local_server.replies(reply(200, "x", **PAGE))
    async with fetcher_for(local_server, host_pause_s=3000.0) as fetcher:
        for host in ("a", "a", "b", "a"):
            await fetcher.fetch(
                f"http://{host}.example.com:{local_server.port}/", accept=PAGE_TYPES
            )
        fetcher.slow_down("b.example.com", 7000.0)
        await fetcher.fetch(f"http://b.example.com:{local_server.port}/", accept=PAGE_TYPES)
        await fetcher.fetch(f"http://b.example.com:{local_server.port}/", accept=PAGE_TYPES)
    assert waits[:4] == [0, 3000, 0, 6000]
    assert waits[5] - waits[4] == pytest.approx(7000, abs=100)


async def test_a_site_that_minds_is_not_asked(local_server):
    seen = []

    async def allow(url):
        seen.append(url.path)
        return url.path != "/private"

    local_server.replies(reply(302, location="/private"))
    with pytest.raises(FetchRefusedError, match=r"robots\.txt"):
        await fetch(local_server, "/open", allow=allow)
    assert seen == ["/open", "/private"]
    assert [asked.path for asked in local_server.asked] == ["/open"]
