"""Read the pages behind results: fetch, take out the text, keep what answers the question. A page
that cannot be read keeps its snippet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache

from retrieval_server.encoder import Encoder
from retrieval_server.service import Reading
from retrieval_server.sources import SearchResult
from retrieval_server.web.extract import Extractor
from retrieval_server.web.fetch import PAGE_TYPES, Fetcher, FetchFailedError
from retrieval_server.web.passages import choose, split
from retrieval_server.web.provider import CallError
from retrieval_server.web.robots import Robots
from retrieval_server.web.summary import Summariser
from retrieval_server.web.url_policy import FetchRefusedError

_PAGE_KEPT_S = 3_600.0
_KEPT_CHARS = 20_000_000
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrowseSettings:
    """How much is read.

    Attributes:
        max_pages: results beyond it keep their snippets.
        page_chars: what is kept of a page.
        timeout_s: for all pages of a search together.
    """

    max_pages: int
    page_chars: int
    timeout_s: float = 25.0


class PageBrowser:
    """Reads pages for all clients; texts of pages are remembered for an hour. Belongs to one event
    loop; `close` it.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        encoder: Encoder,
        extractor: Extractor,
        *,
        settings: BrowseSettings,
        fingerprint: str,
        summariser: Summariser | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read through a fetcher, which is not closed with this; `fingerprint` names whatever
        changes what is read, for the cache.
        """
        self.fingerprint = fingerprint
        self._fetcher, self._encoder, self._extractor, self._settings, self._summariser = (
            fetcher,
            encoder,
            extractor,
            settings,
            summariser,
        )
        self._robots = Robots(fetcher)
        self._pages = _PageCache(clock)
        self.counts: Counter[str] = Counter()
        """Of pages since the start: pages_read, pages_refused, pages_failed, summaries,
        summaries_failed.
        """

    async def read(self, query: str, hits: tuple[SearchResult, ...]) -> Reading:
        """Replace snippets by what the pages say about the query; never fails, for there are the
        snippets.
        """
        pages = [
            asyncio.create_task(self._answer_of(query, hit.source))
            for hit in hits[: self._settings.max_pages]
        ]
        _, late = await asyncio.wait(pages, timeout=self._settings.timeout_s)
        for task in late:
            task.cancel()
        texts = await asyncio.gather(*pages, return_exceptions=True)
        for text in texts:
            if isinstance(text, Exception):
                raise text  # A bug: what may go wrong with a page has become None.
        read = [
            hit if not isinstance(text, str) else dataclasses.replace(hit, text=text)
            for hit, text in zip(hits, texts, strict=False)
        ]
        num_read = sum(isinstance(text, str) for text in texts)
        note = (
            None
            if num_read == len(pages)
            else f"{num_read} of {len(pages)} pages could be read; the others show their snippets"
        )
        return Reading((*read, *hits[len(read) :]), num_read, note)

    async def close(self) -> None:
        """End the workers and close the summary model's connections."""
        await self._extractor.close()
        if self._summariser is not None:
            await self._summariser.close()

    async def _answer_of(self, query: str, address: str) -> str | None:
        try:
            text = await self._pages.get(address, self._text_of)
        except FetchRefusedError as error:
            self.counts["pages_refused"] += 1
            _logger.info("%.200r: not read (%s)", address, error)
            return None
        except FetchFailedError as error:
            self.counts["pages_failed"] += 1
            _logger.info("%.200r: could not be read (%s)", address, error)
            return None
        self.counts["pages_read"] += 1
        chosen = await asyncio.to_thread(
            lambda: choose(query, split(text), self._encoder, self._settings.page_chars)
        )
        return (
            (await self._summary_of(query, text) or chosen) if self._summariser else chosen or None
        )

    async def _text_of(self, address: str) -> str:
        page = await self._fetcher.fetch(
            address, accept=PAGE_TYPES, cut=True, allow=self._robots.allow
        )
        text = await self._extractor.text_of(page)
        if not text.strip():
            raise FetchRefusedError("no text on it")
        return text

    async def _summary_of(self, query: str, text: str) -> str | None:
        assert self._summariser is not None
        try:
            summary = await self._summariser.summarise(query, text, self._settings.page_chars)
        except CallError as failure:
            self.counts["summaries_failed"] += 1
            _logger.warning("no summary: %s", failure)
            return None
        self.counts["summaries"] += 1
        return summary


class _PageCache:
    """Texts of pages by address, the latest used ones. Many who want one page at once wait for one
    download.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._texts: TTLCache[str, str, float] = TTLCache(_KEPT_CHARS, _PAGE_KEPT_S, clock, len)
        self._flights: dict[str, asyncio.Task[str]] = {}

    async def get(self, address: str, load: Callable[[str], Coroutine[Any, Any, str]]) -> str:
        kept = self._texts.get(address)
        if kept is not None:
            return kept
        flight = self._flights.get(address)
        if flight is None:
            flight = self._flights[address] = asyncio.create_task(load(address))
            flight.add_done_callback(lambda done: self._finished(address, done))
        # One reader whose time is up must not take the page from the others.
        return await asyncio.shield(flight)

    def _finished(self, address: str, flight: asyncio.Task[str]) -> None:
        del self._flights[address]
        if not flight.cancelled() and flight.exception() is None:
            self._texts[address] = flight.result()
