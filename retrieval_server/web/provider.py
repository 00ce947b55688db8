"""What every provider has in common: its protocol, its failures, and one careful way of asking a
JSON interface.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, cast

import httpx

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import (
    BudgetExhaustedError,
    QueryError,
    RefusedError,
    SourceError,
    UnavailableError,
)

MAX_REPLY_BYTES = 4 << 20
_MAX_TITLE_CHARS, _MAX_TEXT_CHARS, _MAX_URL_CHARS, _MAX_REASON_CHARS = 300, 2_000, 2_000, 200
_MAX_RETRY_AFTER_S = 3_600.0
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WebHit:
    """One result of a provider; `image_urls` are addresses of its copies, the best first, and empty
    for text.
    """

    title: str
    text: str
    url: str
    score: float
    image_urls: tuple[str, ...] = ()


class CallError(Exception):
    """One call failed.

    Attributes:
        error: what to tell the client if it stays so.
        retryable: another call may succeed.
        billed: the provider may have charged for this one.
    """

    def __init__(
        self, error: SourceError, *, retryable: bool = False, billed: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error, self.retryable, self.billed = error, retryable, billed


class KeyRefusedError(RefusedError):
    """The provider does not accept the key."""


class Provider(Protocol):
    """Asks one search service."""

    @property
    def name(self) -> str:
        """As in the catalogue."""
        ...

    @property
    def kinds(self) -> frozenset[CollectionKind]:
        """What it can be asked for."""
        ...

    @property
    def max_results(self) -> int:
        """The most results that one call may ask for."""
        ...

    async def ask(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        """Make one call for at most `num` results, best first.

        Raises:
            CallError: it failed.
        """
        ...

    async def check(self) -> None:
        """See that the key is good, at no cost.

        Raises:
            CallError: it could not be found out, or the key is refused (`KeyRefusedError`).
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class JsonApi:
    """Calls a JSON interface over HTTP. Redirects are not followed: the key goes to the configured
    address and nowhere else.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        secret: str | None = None,
        timeout_s: float = 20.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the calls; nothing is sent yet.

        Args:
            name: of the provider, for messages.
            base_url: of the service.
            headers: sent with every call; they carry the key.
            secret: never appears in a message.
            timeout_s: for one call, to the last byte.
            transport: replaces the network, for tests.
        """
        self._name, self._secret, self._timeout_s = name, secret, timeout_s
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"Accept": "application/json", **headers, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            limits=httpx.Limits(max_connections=64, keepalive_expiry=30.0),
            trust_env=False,
            transport=transport,
        )

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Make one call and return the JSON object of the reply.

        Raises:
            CallError: there is none; says what the status means.
        """
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream(method, path, params=params, json=body) as response,
            ):
                content = await self._read(response)
        except (TimeoutError, httpx.TimeoutException):
            problem = UnavailableError(f"{self._name}: no answer within {self._timeout_s:g} s")
            raise CallError(problem, retryable=True, billed=True) from None
        except httpx.ConnectError as error:
            raise CallError(
                UnavailableError(f"{self._name}: cannot be reached ({self._clean(str(error))})"),
                retryable=True,
            ) from None
        except httpx.HTTPError as error:
            problem = UnavailableError(
                f"{self._name}: the connection broke ({type(error).__name__})"
            )
            raise CallError(problem, retryable=True, billed=True) from None
        if response.status_code != 200:
            raise self._failure(response, content)
        try:
            reply: object = json.loads(content)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            what = response.headers.get("Content-Type", "no content type")
            raise CallError(
                UnavailableError(
                    f"{self._name}: the reply is no JSON object ({self._clean(what)})"
                ),
                billed=True,
            )
        return cast("dict[str, Any]", reply)

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        # Raw: a compressed reply was not asked for, and unpacking one could take any amount of
        # memory.
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_REPLY_BYTES:
                raise CallError(
                    UnavailableError(
                        f"{self._name}: the reply is larger than {MAX_REPLY_BYTES} bytes"
                    ),
                    billed=True,
                )
        return bytes(content)

    def _failure(self, response: httpx.Response, content: bytes) -> CallError:
        status, reason = response.status_code, self._reason(content)
        said = f"{self._name}: HTTP {status}" + (f", {reason}" if reason else "")
        if status == 429 or status >= 500:
            return CallError(
                UnavailableError(said, retry_after_s=_retry_after_s(response)), retryable=True
            )
        # 432 and 433 are Tavily's for a plan and a pay-as-you-go limit; Serper says 400 and names
        # the credits.
        if status in {402, 432, 433} or (status == 400 and "credit" in reason.lower()):
            return CallError(
                BudgetExhaustedError(f"the {self._name} account has no credit left (HTTP {status})")
            )
        if status in {400, 413, 422}:
            return CallError(QueryError(said))
        if status in {401, 403}:
            return CallError(KeyRefusedError(f"{said}; is its key right?"))
        return CallError(RefusedError(f"{said}; is its address right?"))

    def _reason(self, content: bytes) -> str:
        """Find the provider's own words, short and without the key."""
        try:
            reply: Any = json.loads(content[:10_000])
        except (ValueError, RecursionError):
            return ""
        for name in ("message", "error", "detail"):
            if isinstance(reply, dict) and name in reply:
                reply = cast("dict[str, Any]", reply)[name]
        return self._clean(reply) if isinstance(reply, str) else ""

    def _clean(self, text: str) -> str:
        hidden = text.replace(self._secret, "***") if self._secret else text
        return one_line(hidden, _MAX_REASON_CHARS)


def _retry_after_s(response: httpx.Response) -> float:
    """Read Retry-After in seconds; its date form is not honoured."""
    stated = response.headers.get("Retry-After", "")
    return (
        min(float(stated), _MAX_RETRY_AFTER_S)
        if stated.isascii() and stated.isdigit() and len(stated) < 6
        else 0.0
    )


def one_line(text: object, max_chars: int) -> str:
    """Give foreign text as one line that has a UTF-8 form; anything but text becomes empty."""
    if not isinstance(text, str):
        return ""
    line = " ".join(text[: 8 * max_chars].encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def entries(
    reply: Mapping[str, Any], name: str, provider: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the objects of a list in a reply from 1; a missing list is an empty one.

    Raises:
        CallError: it is something else than a list.
    """
    listed: object = reply.get(name) or []
    if not isinstance(listed, list):
        raise CallError(
            UnavailableError(f"{provider}: '{name}' of the reply is no list"), billed=True
        )
    for rank, entry in enumerate(cast("list[object]", listed), 1):
        if isinstance(entry, dict):
            yield rank, cast("dict[str, Any]", entry)


def text_hit(title: object, text: object, url: object, score: float) -> WebHit:
    """Make a hit of whatever a provider sent."""
    return WebHit(
        one_line(title, _MAX_TITLE_CHARS), one_line(text, _MAX_TEXT_CHARS), web_address(url), score
    )


def image_hit(title: object, page: object, score: float, *urls: object) -> WebHit:
    """Make a hit of an image and its smaller copies."""
    addresses = tuple(dict.fromkeys(address for address in map(web_address, urls) if address))
    return WebHit(one_line(title, _MAX_TITLE_CHARS), "", web_address(page), score, addresses)


def web_address(value: object) -> str:
    """Return an http(s) address as it stands, or nothing; whether it may be fetched is for the
    fetcher to say.
    """
    if not isinstance(value, str) or len(value) > _MAX_URL_CHARS or not value.isprintable():
        return ""
    address = f"https:{value}" if value.startswith("//") else value
    return address if address.startswith(("http://", "https://")) else ""


def number_or(value: object, default: float) -> float:
    """Return a finite number as it is, and the default for anything else."""
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else default
    )
