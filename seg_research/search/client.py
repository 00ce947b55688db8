"""The only HTTP client of the search server. Everything that comes back is bounded and validated
before anything looks at it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
import os
import random
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ValidationError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    RetryError,
    retry_if_exception_type,
    stop_after_attempt,
)

from retrieval_server.schemas import (
    DEADLINE_HEADER,
    JPEG_DATA_URL,
    MAX_DEADLINE_S,
    Health,
    Hit,
    Problem,
    SearchResponse,
)
from seg_common.errors import InfraError, ToolError, UsageError
from seg_research.episode.escaping import Escaper
from seg_research.search.settings import SearchSettings

TOKEN_VARIABLE = "SEG_RESEARCH_SEARCH_TOKEN"
MAX_REPLY_BYTES = 8 << 20
MAX_IMAGE_PIXELS = 1 << 20
_MAX_DETAIL_CHARS = 300
_KEEP_ALIVE_S = 30.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.1, 2.0
_REFUSED = frozenset({400, 413, 422})
"""The query is at fault. Any other 4xx but 429 says that this is not a search server of ours."""
_WANTS_TOKEN = 401
_UPSTREAM_REFUSED = 424
"""The server is ours, but what it asks, such as a web provider, wants something changed."""
_ESCAPE = Escaper()
"""For logs and errors; what a policy is shown is escaped once more, with its recipe's tags."""
_logger = logging.getLogger(__name__)
Reply = TypeVar("Reply", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One result; `image` is decoded RGB, or None for passages and for images that could not be
    had.
    """

    title: str
    text: str
    score: float
    source: str
    image: Image.Image | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Hits, best first, and what it took to get them.

    Attributes:
        note: why there are fewer hits, or less in them, than there could be, such as an exhausted
            budget; one harmless line.
        browsed: the texts are parts of pages and not snippets.
        cached: the server had been asked before.
    """

    hits: tuple[SearchHit, ...]
    note: str | None = None
    browsed: bool = False
    cached: bool = False


class _RetryableError(Exception):
    """This attempt failed in a way that another one may not."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


_RETRYABLE = (_RetryableError, httpx.TransportError)


class SearchClient:
    """Asks one search server; `async with SearchClient(url) as client`.

    Keeps its connections open between requests, so it belongs to the event loop that first uses it:
    one client per loop.
    """

    def __init__(
        self,
        base_url: str,
        *,
        deadline_s: float = 20.0,
        attempts: int = 4,
        max_connections: int = 16,
        browse: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet. A server that wants a token is shown the one in
        the environment (`TOKEN_VARIABLE`).

        Args:
            base_url: as `seg-research serve` prints it.
            deadline_s: for a whole call, all attempts and pauses together.
            attempts: tries per call at most.
            max_connections: calls above that number wait for their turn, within their deadline.
                More are slower: httpx looks at every connection for every request (measured: 2 ms
                of CPU a request with 16 of them, 11 ms with 64).
            browse: have the pages of web results read.
            transport: replaces the network, for tests.

        Raises:
            UsageError: the address is not http(s)://host[:port], or the token is none.
        """
        self._port = _port_of(base_url)
        self.base_url = base_url.rstrip("/")
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._browse = browse
        # Waiting here is cheap; waiting inside httpx's pool costs every request a walk over all
        # that wait.
        self._turns = asyncio.Semaphore(max_connections)
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            timeout=deadline_s,
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEEP_ALIVE_S,
            ),
            headers={"Accept-Encoding": "identity", **_authorisation()},
            trust_env=False,
            transport=transport,
        )

    @classmethod
    def of(cls, settings: SearchSettings) -> Self:
        """Prepare the client that these settings describe; the same in every host.

        Raises:
            UsageError: they name no server.
        """
        if settings.url is None:
            raise UsageError(
                "search: no address of a search server is known; name one (search.url)"
            )
        return cls(settings.url, deadline_s=settings.deadline_s, browse=settings.browse)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def search(self, query: str, kind: Literal["text", "image"], top_k: int) -> SearchOutcome:
        """Look a query up. A budget that is used up, ours or the server's, is an outcome without
        hits and with a note.

        Raises:
            ToolError: the server refuses the query; the text says why and may be shown to the
                policy.
            InfraError: no usable answer within the deadline.
        """
        # A policy can write half a surrogate pair as a JSON escape; it has no UTF-8 form.
        sendable = query.encode("utf-8", "replace").decode("utf-8")
        browse = {"browse": True} if self._browse and kind == "text" else {}
        body = {"query": sendable, "kind": kind, "top_k": top_k, **browse}
        reply = await self._call("POST", "/search", SearchResponse, body)
        hits = await asyncio.to_thread(lambda: tuple(_decode(hit) for hit in reply.hits[:top_k]))
        note = _one_line(reply.note) if reply.note else None
        return SearchOutcome(hits, note, browsed=bool(browse), cached=reply.cached)

    async def health(self) -> Health:
        """Ask what the server serves.

        Raises:
            InfraError: no usable answer within the deadline.
        """
        return await self._call("GET", "/healthz", Health)

    async def _call(
        self, method: str, path: str, schema: type[Reply], body: dict[str, Any] | None = None
    ) -> Reply:
        give_up = time.monotonic() + self._deadline_s

        problem, num_attempts = "no answer yet", 0

        async def attempt() -> Reply:
            nonlocal problem, num_attempts
            num_attempts += 1
            try:
                content = await self._attempt(method, path, body, give_up)
            except _RETRYABLE as error:
                problem = str(error) or type(error).__name__
                raise
            return _validated(schema, content, self.base_url)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=_pause_s,
            retry=retry_if_exception_type(_RETRYABLE),
        )
        try:
            async with asyncio.timeout(self._deadline_s):
                return await retrying(attempt)
        except RetryError:
            pass
        except TimeoutError:
            problem += f"; gave up at the deadline of {self._deadline_s:g} s"
        raise InfraError(
            f"search server {self.base_url}: no answer after {num_attempts} attempt(s) ({problem});"
            " is it running? Start one with: seg-research serve --text CORPUS.jsonl --port"
            f" {self._port}"
        )

    async def _attempt(
        self, method: str, path: str, body: dict[str, Any] | None, give_up: float
    ) -> bytes:
        async with self._turns:
            left = {
                DEADLINE_HEADER: (
                    f"{min(MAX_DEADLINE_S, max(0.001, give_up - time.monotonic())):.3f}"
                )
            }
            async with self._http.stream(method, path, json=body, headers=left) as response:
                content = await self._read(response)
        status = response.status_code
        if status == 200:
            return content
        if status == 429 or status >= 500:
            raise _RetryableError(f"HTTP {status}: {_detail(content)}", _retry_after_s(response))
        if status in _REFUSED:
            raise ToolError(_detail(content))
        if status == _UPSTREAM_REFUSED:
            raise InfraError(f"search server {self.base_url}: {_detail(content)}")
        if status == _WANTS_TOKEN:
            raise InfraError(
                f"search server {self.base_url}: HTTP {status}: {_detail(content)}; it wants a"
                f" token: export {TOKEN_VARIABLE}=…"
            )
        reason = f"HTTP {status} for {path}: {_detail(content)}"
        raise InfraError(
            f"search server {self.base_url}: {reason}; does this address belong to `seg-research"
            " serve`?"
        )

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        # Raw: a compressed reply was not asked for, and unpacking one could take any amount of
        # memory.
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_REPLY_BYTES:
                raise InfraError(
                    f"search server {self.base_url}: reply larger than {MAX_REPLY_BYTES} bytes; ask"
                    " for fewer hits"
                )
        return bytes(content)


def _pause_s(state: RetryCallState) -> float:
    """Wait for what the server asked for, and longer after each failure."""
    error = state.outcome and state.outcome.exception()
    asked_s = error.pause_s if isinstance(error, _RetryableError) else 0.0
    backoff_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2 ** (state.attempt_number - 1))
    # Spread, so that clients that failed together do not come back together.
    return asked_s + random.uniform(0.5, 1.0) * backoff_s


def _port_of(base_url: str) -> int:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    port = url.port or (443 if url.scheme == "https" else 80)
    if url.scheme not in {"http", "https"} or not url.host or port > 65535:
        raise UsageError(
            f"search server address {base_url!r}: expected http://host:port, as `seg-research"
            " serve` prints it"
        )
    return port


def _validated(schema: type[Reply], content: bytes, base_url: str) -> Reply:
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InfraError(
            f"search server {base_url}: unusable reply ({where}:"
            f" {first['msg'][:_MAX_DETAIL_CHARS]}); client and server must be of the same version"
            " of seg_research"
        ) from None


def _retry_after_s(response: httpx.Response) -> float:
    """Read Retry-After in seconds; its date form is not honoured."""
    stated = response.headers.get("Retry-After", "")
    return float(stated) if stated.isascii() and stated.isdigit() and len(stated) < 6 else 0.0


def _detail(content: bytes) -> str:
    """Extract the server's reason, short and harmless: the policy may be shown it."""
    try:
        detail = Problem.model_validate_json(content).detail
    except ValidationError:
        detail = content[:_MAX_DETAIL_CHARS].decode("utf-8", "replace")
    return _one_line(detail) or "no reason given"


def _one_line(text: str) -> str:
    return _ESCAPE(" ".join(text.split()))[:_MAX_DETAIL_CHARS]


def _authorisation() -> dict[str, str]:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{TOKEN_VARIABLE} holds characters that no token has; copy it again")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _decode(hit: Hit) -> SearchHit:
    image = None if hit.image is None else _decode_image(hit.image, hit.source)
    return SearchHit(hit.title, hit.text, hit.score, hit.source, image)


def _decode_image(url: str, source: str) -> Image.Image | None:
    """Decode a JPEG data URL as RGB; None where it is anything else, is broken, or is larger than
    our server would send.
    """
    try:
        if not url.startswith(JPEG_DATA_URL):
            raise ValueError("not a JPEG data URL")
        raw = base64.b64decode(url[len(JPEG_DATA_URL) :], validate=True)
        with Image.open(io.BytesIO(raw), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels")
            return image.convert("RGB")
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        binascii.Error,
        Image.DecompressionBombError,
    ) as error:
        _logger.warning("search result %.80r: image dropped (%s)", source, error)
        return None
