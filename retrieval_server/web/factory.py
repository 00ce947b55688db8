"""From settings to routes: the provider with its limits, the cache, and the browser."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

from platformdirs import user_state_path

from retrieval_server.cache_file import CacheMode, SqliteCache
from retrieval_server.encoder import Encoder
from retrieval_server.schemas import CollectionKind
from retrieval_server.service import Browser, Reading, Route
from retrieval_server.sources import SearchResult
from retrieval_server.web.browse import BrowseSettings, PageBrowser
from retrieval_server.web.budget_ledger import Budget, Ledger
from retrieval_server.web.extract import Extractor
from retrieval_server.web.fetch import Fetcher
from retrieval_server.web.images import ImageLoader
from retrieval_server.web.limiter import Limiter
from retrieval_server.web.options import WebSettings, is_http_address
from retrieval_server.web.provider import CallError, KeyRefusedError, Provider
from retrieval_server.web.searxng import Searxng
from retrieval_server.web.serper import Serper
from retrieval_server.web.source import WebSource
from retrieval_server.web.summary import KEY_VARIABLE, MODEL_VARIABLE, URL_VARIABLE, Summariser
from retrieval_server.web.tavily import Tavily
from seg_common.errors import UsageError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WebParts:
    """What a server needs to search the web.

    Attributes:
        routes: for each kind that the provider knows.
        close: to be awaited at the end.
        counts: of calls, retries, images and pages since the start.
        summary: for the line that is printed at start.
    """

    routes: dict[CollectionKind, Route]
    close: Callable[[], Awaitable[None]]
    counts: Callable[[], Counter[str]]
    summary: str


class NoBrowser:
    """Says that pages are not read, where a request asks for it."""

    def __init__(self, fingerprint: str = "unread") -> None:
        """Look answers up under the name of a browser that is not there any more, to replay what it
        read.
        """
        self.fingerprint = fingerprint

    async def read(self, query: str, hits: tuple[SearchResult, ...]) -> Reading:
        """Leave the snippets as they are."""
        return Reading(
            hits,
            0,
            "this server does not read pages (seg-research serve --browse); these are the snippets",
        )


def open_web(
    settings: WebSettings, encoder: Encoder | None, *, fetcher: Fetcher | None = None
) -> WebParts:
    """Open the provider, its account, the cache and the browser; ask the provider whether the key
    is good.

    Args:
        settings: what the user chose.
        encoder: chooses passages of pages; needed with `settings.browse`.
        fetcher: replaces the one for the public Internet, for tests; closed with the rest.

    Raises:
        UsageError: a key, address, file or package is missing or wrong.
    """
    facts = settings.facts
    mode = CacheMode(settings.cache_mode)
    ttl_s = facts.ttl_s if settings.ttl_s is None else settings.ttl_s
    cache = None
    if mode is not CacheMode.OFF:
        assert settings.cache_file is not None
        cache = SqliteCache(settings.cache_file, mode=mode, ttl_s=ttl_s)
    if mode is CacheMode.REPLAY:
        return _replay(settings, cache)
    if settings.browse and encoder is None:
        raise UsageError(
            "--browse chooses passages by meaning and needs an encoder; leave --retriever bm25 out"
        )
    provider = _provider(settings)
    _check_key(settings)
    fetcher = fetcher or Fetcher()
    ledger, limiter = _ledger(settings), _limiter(settings)
    source = WebSource(
        provider, limiter=limiter, ledger=ledger, get_image=ImageLoader(fetcher).load
    )
    browser = _browser(settings, encoder, fetcher)

    async def close() -> None:
        if isinstance(browser, PageBrowser):
            await browser.close()
        await fetcher.close()
        await provider.close()
        ledger.close()
        if cache is not None:
            cache.close()

    def counts() -> Counter[str]:
        return (
            source.counts + browser.counts
            if isinstance(browser, PageBrowser)
            else Counter(source.counts)
        )

    route = Route(source, cache, browser=browser, finishes_alone=True)
    described = (
        f"web {settings.provider}"
        + (f", {mode} {settings.cache_file}" if cache else "")
        + (", reads pages" if settings.browse else "")
    )
    return WebParts(dict.fromkeys(provider.kinds, route), close, counts, described)


def _ledger(settings: WebSettings) -> Ledger:
    facts = settings.facts
    return Ledger(
        settings.spend_file or user_state_path("seg_research") / "spend.sqlite",
        settings.provider,
        usd_per_call=(
            facts.usd_per_credit if settings.usd_per_call is None else settings.usd_per_call
        ),
        budget=Budget(
            settings.calls_per_day,
            settings.usd_per_day,
            settings.calls_per_run,
            settings.usd_per_run,
        ),
        run=settings.run,
    )


def _limiter(settings: WebSettings) -> Limiter:
    facts = settings.facts
    return Limiter(
        settings.provider,
        rate_per_s=settings.rate_per_s or facts.rate_per_s,
        concurrency=settings.concurrency or facts.concurrency,
    )


class _Recording:
    """Stands for a provider whose answers are replayed; the service never asks it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kinds = frozenset(CollectionKind)

    async def find(self, query: str, kind: CollectionKind, top_k: int) -> list[SearchResult]:
        raise AssertionError("a recording is not asked")


def _replay(settings: WebSettings, cache: SqliteCache | None) -> WebParts:
    assert cache is not None

    async def close() -> None:
        cache.close()

    route = Route(
        _Recording(settings.provider), cache, replay=True, browser=NoBrowser(_fingerprint(settings))
    )
    return WebParts(
        dict.fromkeys(CollectionKind, route),
        close,
        Counter,
        f"web {settings.provider}, replay {settings.cache_file}",
    )


def _fingerprint(settings: WebSettings) -> str:
    if not settings.browse:
        return "unread"
    summary = os.environ.get(MODEL_VARIABLE, "") if os.environ.get(URL_VARIABLE) else ""
    return f"browse pages={settings.max_pages} chars={settings.page_chars} summary={summary}"


def _provider(settings: WebSettings) -> Provider:
    key, url = settings.key(), settings.url
    match settings.provider:
        case "serper":
            return Serper(url, key or "")
        case "tavily":
            return Tavily(url, key or "")
        case "searxng":
            return Searxng(url)
        case _:
            try:
                from retrieval_server.web.duckduckgo import DuckDuckGo
            except ModuleNotFoundError as error:
                raise UsageError(
                    f"{error.name} is not installed; install it with: pip install"
                    " 'seg-research[retrieval]'"
                ) from None
            return DuckDuckGo()


def _check_key(settings: WebSettings) -> None:
    """Ask the provider about the key before the first search needs it, with connections and a loop
    of their own.
    """

    async def check() -> None:
        provider = _provider(settings)
        try:
            await provider.check()
        finally:
            await provider.close()

    with ThreadPoolExecutor(1) as thread:  # There may be a loop on this one already.
        try:
            thread.submit(asyncio.run, check()).result()
        except CallError as failure:
            if isinstance(failure.error, KeyRefusedError):
                facts = settings.facts
                raise UsageError(
                    f"--provider {settings.provider}: the key in {facts.key_env} is refused"
                    f" ({failure}); {facts.where}"
                ) from None
            _logger.warning("the key of %s could not be checked: %s", settings.provider, failure)


def _browser(settings: WebSettings, encoder: Encoder | None, fetcher: Fetcher) -> Browser:
    if not settings.browse or encoder is None:
        return NoBrowser()
    if find_spec("trafilatura") is None:
        raise UsageError(
            "trafilatura is not installed; install it with: pip install 'seg-research[retrieval]'"
        )
    return PageBrowser(
        fetcher,
        encoder,
        Extractor(),
        settings=BrowseSettings(settings.max_pages, settings.page_chars),
        fingerprint=_fingerprint(settings),
        summariser=_summariser(),
    )


def _summariser() -> Summariser | None:
    url, model = os.environ.get(URL_VARIABLE, ""), os.environ.get(MODEL_VARIABLE, "")
    if not url:
        return None
    if not model or not is_http_address(url):
        raise UsageError(
            f"{URL_VARIABLE}={url}: expected http(s)://HOST[:PORT]/v1, and the name of a model in"
            f" {MODEL_VARIABLE}"
        )
    return Summariser(url, model, os.environ.get(KEY_VARIABLE) or None)
