"""DuckDuckGo through the maintained client `ddgs`, which knows how its pages are asked and read. No
key; it blocks whoever asks too fast.

The engines of ddgs are used one level below its front door, which says "no results" both when
nothing was found and when it was refused: the one is an answer to keep, the other is not.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ddgs.engines.duckduckgo import Duckduckgo
from ddgs.engines.duckduckgo_images import DuckduckgoImages
from ddgs.exceptions import DDGSException, TimeoutException
from lxml.etree import LxmlError  # pyright: ignore[reportUnknownVariableType]

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import UnavailableError
from retrieval_server.web.provider import CallError, WebHit, image_hit, one_line, text_hit

_BUSY = frozenset({202, 418, 429})
"""How DuckDuckGo says that it was asked too fast; 202 comes with a puzzle for people."""
_BLOCKED_PAUSE_S = 10.0
_NOTHING_FOUND = "no-results"


class _StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class _Strict:
    """Raises on a status that ddgs passes over in silence, and remembers the page."""

    http_client: Any
    page = ""

    def request(self, *args: Any, **options: Any) -> str:
        response = self.http_client.request(*args, **options)
        if response.status_code != 200:
            raise _StatusError(response.status_code)
        self.page = response.text
        return self.page


class _TextEngine(_Strict, Duckduckgo):
    disabled = True  # Not for the registry of ddgs.


class _ImageEngine(_Strict, DuckduckgoImages):
    disabled = True


class DuckDuckGo:
    """Its public pages."""

    name = "duckduckgo"
    kinds = frozenset(CollectionKind)
    max_results = 10

    def __init__(self, *, timeout_s: float = 20.0) -> None:
        """Prepare the calls."""
        self._timeout_s = timeout_s

    async def ask(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        """Make one call; see `Provider`."""
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                hits = await asyncio.to_thread(
                    self._images if kind is CollectionKind.IMAGE else self._texts, query
                )
        except _StatusError as error:
            busy = error.status in _BUSY
            problem = UnavailableError(
                f"duckduckgo: HTTP {error.status}", retry_after_s=_BLOCKED_PAUSE_S if busy else 0.0
            )
            raise CallError(problem, retryable=busy or error.status >= 500) from None
        except (TimeoutException, TimeoutError):
            raise CallError(
                UnavailableError(f"duckduckgo: no answer within {self._timeout_s:g} s"),
                retryable=True,
            ) from None
        except DDGSException as error:
            raise CallError(
                UnavailableError(f"duckduckgo: {one_line(str(error), 150)}"), retryable=True
            ) from None
        except (
            LxmlError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:  # pyright: ignore[reportUnknownVariableType]
            problem = type(error).__name__  # pyright: ignore[reportUnknownArgumentType]
            raise CallError(UnavailableError(f"duckduckgo: unreadable reply ({problem})")) from None
        return hits[:num]

    def _texts(self, query: str) -> list[WebHit]:
        engine = _TextEngine(timeout=round(self._timeout_s))
        results = engine.search(query)
        if not results and _NOTHING_FOUND not in engine.page:
            raise CallError(
                UnavailableError(
                    "duckduckgo: sent a page without results, and without saying that there are"
                    " none"
                )
            )
        return [
            text_hit(found.title, found.body, found.href, 1 / rank)
            for rank, found in enumerate(results or [], 1)
        ]

    def _images(self, query: str) -> list[WebHit]:
        results = _ImageEngine(timeout=round(self._timeout_s)).search(query)
        if results is None:
            raise CallError(UnavailableError("duckduckgo: sent an empty reply"))
        return [
            image_hit(found.title, found.url, 1 / rank, found.image, found.thumbnail)
            for rank, found in enumerate(results, 1)
        ]

    async def check(self) -> None:
        """There is no key."""

    async def close(self) -> None:
        """Nothing stays open between calls."""
