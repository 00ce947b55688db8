"""One search from request to reply: memory, single flight, cache file, source, page browsing.

A question that many clients ask at once is asked of its source once. What the source said is kept;
that it failed is told to all of them and forgotten.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from retrieval_server.cache import CachedSearch, Key, SearchCache
from retrieval_server.schemas import (
    JPEG_DATA_URL,
    CollectionKind,
    Hit,
    SearchRequest,
    SearchResponse,
)
from retrieval_server.sources import (
    BudgetExhaustedError,
    DeadlineError,
    NotRecordedError,
    SearchResult,
    Source,
    SourceError,
    UnavailableError,
)

_SHOWN_QUERY_CHARS = 120


class Browser(Protocol):
    """Reads the pages behind results."""

    @property
    def fingerprint(self) -> str:
        """Names whatever changes what is read, for the cache."""
        ...

    async def read(self, query: str, hits: tuple[SearchResult, ...]) -> Reading:
        """Replace snippets by what the pages say about the query; never fails, for there are the
        snippets.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """Results after browsing; `num_read` of their pages could be read."""

    hits: tuple[SearchResult, ...]
    num_read: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers for one kind of collection.

    Attributes:
        cache: None asks the source every time.
        replay: neither the source nor the browser is asked for what the cache does not hold.
        options: whatever in the source's settings changes its answers, for the cache.
        browser: None where pages cannot be read, as for local corpora.
        finishes_alone: a search continues when nobody waits for it any more, since its call is paid
            for and its answer will be kept.
    """

    source: Source
    cache: SearchCache | None = None
    replay: bool = False
    options: str = ""
    browser: Browser | None = None
    finishes_alone: bool = False


@dataclass(slots=True)
class _InFlight:
    """A search under way and how many wait for it."""

    task: asyncio.Task[SearchReply]
    num_waiting: int = 0


@dataclass(frozen=True, slots=True)
class SearchReply:
    """An answer and where it came from."""

    answer: CachedSearch
    provider: str
    cached: bool


class Service:
    """Answers searches of any kind. Belongs to the event loop that first asks it, which must `stop`
    it.
    """

    def __init__(
        self,
        routes: Mapping[CollectionKind, Route],
        *,
        default_top_k: int = 3,
        on_stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Serve the kinds that have a route; `on_stop` releases what the routes hold."""
        self._routes = dict(routes)
        self._default_top_k = default_top_k
        self._on_stop = on_stop
        self._flights: dict[Key, _InFlight] = {}
        self.counts: Counter[str] = Counter()
        """Of searches since the start: searches, cache_hits, joined, source_calls, failures,
        budget_exhausted, past_deadline.
        """

    @property
    def kinds(self) -> frozenset[CollectionKind]:
        """What can be searched."""
        return frozenset(self._routes)

    async def stop(self) -> None:
        """Give up what is under way and release everything."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._on_stop is not None:
            await self._on_stop()

    async def search(self, request: SearchRequest) -> SearchResponse:
        """Answer one request of the HTTP interface.

        Raises:
            SourceError: as `find`.
        """
        started = time.perf_counter()
        top_k = request.top_k or self._default_top_k
        reply = await self.find(
            request.query, request.kind, top_k, browse=request.browse, deadline_s=request.deadline_s
        )
        return SearchResponse(
            hits=[_hit(found) for found in reply.answer.hits],
            took_ms=(time.perf_counter() - started) * 1e3,
            provider=reply.provider,
            cached=reply.cached,
            note=reply.answer.note,
        )

    async def find(
        self,
        query: str,
        kind: CollectionKind,
        top_k: int,
        *,
        browse: bool = False,
        deadline_s: float | None = None,
    ) -> SearchReply:
        """Answer one question; an exhausted budget is an answer without hits.

        Raises:
            KeyError: no route for this kind; see `kinds`.
            SourceError: no answer, of a subclass that tells why.
        """
        route = self._routes[kind]
        browse = browse and route.browser is not None and kind is CollectionKind.TEXT
        key = _key(route, query, kind, top_k, browse=browse)
        self.counts["searches"] += 1
        known = route.cache.look(key) if route.cache is not None else None
        if known is not None:
            self.counts["cache_hits"] += 1
            return SearchReply(known, route.source.name, cached=True)
        try:
            return await self._joined(route, key, browse=browse, deadline_s=deadline_s)
        except BudgetExhaustedError as error:
            self.counts["budget_exhausted"] += 1
            return SearchReply(CachedSearch((), str(error)), route.source.name, cached=False)
        except DeadlineError:
            self.counts["past_deadline"] += 1
            raise
        except SourceError:
            self.counts["failures"] += 1
            raise

    async def _joined(
        self, route: Route, key: Key, *, browse: bool, deadline_s: float | None = None
    ) -> SearchReply:
        """Wait for the answer together with everybody who asks the same; a client that leaves does
        not end it for the others.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _InFlight(
                asyncio.create_task(self._answer(route, key, browse=browse))
            )
            flight.task.add_done_callback(lambda task: self._finished(key, task))
        else:
            self.counts["joined"] += 1
        flight.num_waiting += 1
        try:
            done, _ = await asyncio.wait((flight.task,), timeout=deadline_s)
        finally:
            flight.num_waiting -= 1
            if not flight.num_waiting and not flight.task.done() and not route.finishes_alone:
                # Whoever asks from now on must not join what is being given up.
                self._flights.pop(key, None)
                flight.task.cancel()
        if not done:
            raise DeadlineError(f"no answer within the deadline of {deadline_s:g} s")
        if flight.task.cancelled():
            raise UnavailableError("the search server is shutting down")
        return flight.task.result()

    def _finished(self, key: Key, task: asyncio.Task[SearchReply]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # Seen, should all clients have left.

    async def _answer(self, route: Route, key: Key, *, browse: bool) -> SearchReply:
        known = await route.cache.get(key) if route.cache is not None else None
        if known is not None:
            self.counts["cache_hits"] += 1
            return SearchReply(known, route.source.name, cached=True)
        answer, is_whole = await (self._browsed(route, key) if browse else self._asked(route, key))
        if is_whole and route.cache is not None and not route.replay:
            await route.cache.put(key, answer)
        return SearchReply(answer, route.source.name, cached=False)

    async def _asked(self, route: Route, key: Key) -> tuple[CachedSearch, bool]:
        """Ask the source; also tell whether the answer is worth keeping."""
        if route.replay:
            raise NotRecordedError(
                f"this server replays a recording, which holds no {key.kind} search for"
                f" '{_shortened(key.query)}'"
            )
        self.counts["source_calls"] += 1
        hits = tuple(await route.source.find(key.query, key.kind, key.top_k))
        if key.kind is CollectionKind.IMAGE and hits and all(hit.image is None for hit in hits):
            return CachedSearch(hits, "none of the images could be fetched"), False
        return CachedSearch(hits), True

    async def _browsed(self, route: Route, key: Key) -> tuple[CachedSearch, bool]:
        """Read the pages of the plain search, which is kept on its own; also tell whether the
        answer is worth keeping.
        """
        assert route.browser is not None
        plain = (
            await self._joined(route, dataclasses.replace(key, options=route.options), browse=False)
        ).answer
        if not plain.hits:
            return plain, False
        if route.replay:
            return (
                dataclasses.replace(
                    plain, note="the pages of this search were not recorded; these are its snippets"
                ),
                False,
            )
        reading = await route.browser.read(key.query, plain.hits)
        return CachedSearch(reading.hits, reading.note), reading.num_read > 0


def _key(route: Route, query: str, kind: CollectionKind, top_k: int, *, browse: bool) -> Key:
    options = (
        f"{route.options} {route.browser.fingerprint}".strip()
        if browse and route.browser is not None
        else route.options
    )
    return Key.of(route.source.name, kind, query, top_k, options)


def _shortened(query: str) -> str:
    return query if len(query) <= _SHOWN_QUERY_CHARS else query[: _SHOWN_QUERY_CHARS - 1] + "…"


def _hit(found: SearchResult) -> Hit:
    image = (
        None
        if found.image is None
        else JPEG_DATA_URL + base64.b64encode(found.image).decode("ascii")
    )
    return Hit(
        id=found.id,
        title=found.title,
        text=found.text,
        score=found.score,
        image=image,
        source=found.source,
    )
