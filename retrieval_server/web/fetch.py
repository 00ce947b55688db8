"""Download pages and images from anywhere on the public Internet and from nowhere else, within
limits of size, time and redirects.

The connection is made to the very network address that was judged, so that a name which changes its
address between look-up and connection gains nothing; TLS and the Host header keep the name. Every
redirect starts over.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

import httpcore
import httpx
from cachetools import LRUCache

from retrieval_server.web.limiter import Spacing
from retrieval_server.web.url_policy import (
    PUBLIC_WEB,
    FetchRefusedError,
    UrlPolicy,
    as_address,
    is_public,
)
from seg_common import __version__

USER_AGENT = f"seg-research/{__version__}"
PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain"})
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REMEMBERED_HOSTS = 4096
_PER_HOST = 2

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host name and port to network addresses; raises OSError where there are none."""
AddressCheck = Callable[[IPv4Address | IPv6Address], bool]
Allow = Callable[[httpx.URL], Awaitable[bool]]
"""Asked before each request, redirects included, whether the site minds."""


class FetchFailedError(Exception):
    """It may be fetched but could not be; another time it may."""


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bounds of one download; redirects together count as one.

    Attributes:
        max_bytes: after decompression; more is refused for images and cut off for pages.
        timeout_s: to the last byte, waiting for a turn at the host included.
        host_pause_s: between two requests to one host.
    """

    max_bytes: int = 2 << 20
    timeout_s: float = 15.0
    max_redirects: int = 4
    max_connections: int = 32
    host_pause_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an address sent, decompressed. `charset` is what the header states."""

    url: str
    media_type: str
    charset: str | None
    content: bytes


async def resolve(host: str, port: int) -> list[str]:
    """Look a name up as this machine does."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to a name's address only if all addresses of the name are permitted, and to exactly
    what was judged.
    """

    def __init__(self, resolver: Resolver, permits: AddressCheck) -> None:
        self._resolver, self._permits = resolver, permits
        # Without anyio httpcore has a stand-in here, which is all that pyright sees.
        self._network = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look up, judge, connect.

        Raises:
            FetchRefusedError: an address is not permitted.
            httpcore.ConnectError: the name has none, or nobody answers there.
        """
        try:
            texts = [host] if as_address(host) is not None else await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"cannot look the host up ({error})") from None
        addresses = [as_address(text) for text in texts]
        # All of them: a name with one inner address among public ones is an attack, not a site.
        if not addresses or not all(
            address is not None and self._permits(address) for address in addresses
        ):
            raise FetchRefusedError("the host is not on the public Internet")
        failure: Exception | None = None
        for text in texts:
            try:
                return await self._network.connect_tcp(
                    text, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no address leads here."""
        raise FetchRefusedError("local sockets are not fetched")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Fetcher:
    """Downloads from the public Internet. Belongs to one event loop; `close` it."""

    def __init__(
        self,
        *,
        limits: DownloadLimits = DownloadLimits(),
        rules: UrlPolicy = PUBLIC_WEB,
        resolver: Resolver = resolve,
        permits: AddressCheck = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare downloads; `rules`, `resolver`, `permits` and `tls` are there for tests with a
        server of their own.
        """
        self._limits, self._rules = limits, rules
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(trust_env=False),
            max_connections=limits.max_connections,
            max_keepalive_connections=8,
            keepalive_expiry=10.0,
            network_backend=CheckedNetwork(resolver, permits),
        )
        self._hosts: LRUCache[str, Spacing] = LRUCache(_REMEMBERED_HOSTS)

    async def close(self) -> None:
        """Close connections."""
        await self._pool.aclose()

    async def fetch(
        self,
        text: str,
        *,
        accept: frozenset[str],
        max_bytes: int | None = None,
        cut: bool = False,
        allow: Allow | None = None,
    ) -> Fetched:
        """Download one address, its redirects followed.

        Args:
            text: the address.
            accept: media types; others are refused before their body is read.
            max_bytes: in place of the limits' own.
            cut: keep the beginning of what is too large.
            allow: the site's own wishes; None asks for what must always be there to be asked.

        Raises:
            FetchRefusedError: an address on the way may not be fetched, or what came may not be
                used.
            FetchFailedError: it could not be had.
        """
        limits = self._limits
        try:
            async with asyncio.timeout(limits.timeout_s):
                url = self._rules.read(text)
                for _ in range(limits.max_redirects + 1):
                    if allow is not None and not await allow(url):
                        raise FetchRefusedError("the site's robots.txt asks programs to stay away")
                    answer = await self._one(url, accept, max_bytes or limits.max_bytes, cut=cut)
                    if isinstance(answer, Fetched):
                        return answer
                    url = answer
                raise FetchRefusedError(f"more than {limits.max_redirects} redirects")
        except TimeoutError:
            raise FetchFailedError(f"not complete within {limits.timeout_s:g} s") from None
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            OSError,
        ) as error:
            raise FetchFailedError(f"{type(error).__name__}: {str(error)[:120]}") from None

    def slow_down(self, host: str, pause_s: float) -> None:
        """Leave more time between requests to a host that asked for it."""
        self._spacing(host).interval_s = max(self._limits.host_pause_s, pause_s)

    async def _one(
        self, url: httpx.URL, accept: frozenset[str], max_bytes: int, *, cut: bool
    ) -> Fetched | httpx.URL:
        """Make one request; return the content, or where it redirects to."""
        headers = [
            ("Host", url.netloc.decode("ascii")),
            ("User-Agent", USER_AGENT),
            ("Accept", ", ".join(sorted(accept))),
            ("Accept-Encoding", "gzip, deflate"),
        ]
        async with self._spacing(url.host).turn():
            timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._limits.timeout_s)
            # Its parts as they were judged: httpcore would read a string anew, with a parser of its
            # own.
            target = httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            )
            async with self._pool.stream(
                "GET", target, headers=headers, extensions={"timeout": timeouts}
            ) as response:
                fields = _HeaderFields(response.headers)
                if response.status in _REDIRECTS and fields.text("location"):
                    return self._rules.read(str(_joined(url, fields.text("location"))))
                if response.status != 200:
                    problem = (
                        FetchFailedError
                        if response.status == 429 or response.status >= 500
                        else FetchRefusedError
                    )
                    raise problem(f"HTTP {response.status}")
                media_type, charset = fields.content_type()
                if media_type not in accept:
                    raise FetchRefusedError(f"content type {media_type[:60]!r}")
                content = await _read(response, fields, max_bytes, cut=cut)
        return Fetched(str(url), media_type, charset, content)

    def _spacing(self, host: str) -> Spacing:
        return self._hosts.setdefault(host, Spacing(self._limits.host_pause_s, _PER_HOST))


class _HeaderFields:
    """Header fields of a response, by lower-case name; of repeated ones the first."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in headers:
            self._values.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())

    def text(self, name: str) -> str:
        return self._values.get(name, "")

    def content_type(self) -> tuple[str, str | None]:
        # email's own reading of the type takes whatever it does not understand for plain text.
        message = Message()
        message["content-type"] = self.text("content-type")
        return (
            self.text("content-type").partition(";")[0].strip().lower(),
            message.get_content_charset(),
        )


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise FetchRefusedError("redirects to something that is no address") from None


async def _read(
    response: httpcore.Response, fields: _HeaderFields, max_bytes: int, *, cut: bool
) -> bytes:
    """Read and unpack a body; nothing is unpacked beyond the limit, whatever it claims to be."""
    unpack = _unpacker(fields.text("content-encoding"))
    content = bytearray()
    async for chunk in response.aiter_stream():
        content += unpack(chunk, max_bytes + 1 - len(content))
        if len(content) > max_bytes:
            if cut:
                return bytes(content[:max_bytes])
            raise FetchRefusedError(f"larger than {max_bytes} bytes")
    return bytes(content)


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes]:
    """Return a function of a chunk and the most bytes that it may become."""
    match encoding.lower():
        case "" | "identity":
            return lambda chunk, _: chunk
        case "gzip" | "x-gzip" | "deflate":
            # gzip or zlib, as its first bytes say
            decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        case _:
            raise FetchRefusedError(f"content encoding {encoding[:40]!r}")

    def unpack(chunk: bytes, max_bytes: int) -> bytes:
        try:
            return decoder.decompress(decoder.unconsumed_tail + chunk, max_bytes)
        except zlib.error as error:
            raise FetchRefusedError(f"damaged compression ({error})") from None

    return unpack
