"""What sites ask of programs (RFC 9309): robots.txt, read once an hour for each site and obeyed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx
from cachetools import LRUCache
from protego import Protego

from retrieval_server.web.fetch import USER_AGENT, Fetcher, FetchFailedError
from retrieval_server.web.url_policy import FetchRefusedError

_MAX_BYTES = 512 << 10
_KEPT_S = 3_600.0
_FAILURE_KEPT_S = 60.0
_REMEMBERED_SITES = 2_048
_MAX_CRAWL_DELAY_S = 10.0
_ALL, _NOTHING = Protego.parse(""), Protego.parse("User-agent: *\nDisallow: /")


class Robots:
    """Knows the rules of the sites it was asked about. Belongs to one event loop."""

    def __init__(self, fetcher: Fetcher, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read rules with a fetcher."""
        self._fetcher, self._clock = fetcher, clock
        self._sites: LRUCache[str, tuple[float, asyncio.Task[Protego]]] = LRUCache(
            _REMEMBERED_SITES
        )

    async def allow(self, url: httpx.URL) -> bool:
        """Tell whether a page may be read by us; also slows the fetcher down where the site asks
        for it.
        """
        site = f"{url.scheme}://{url.netloc.decode('ascii')}"
        known = self._sites.get(site)
        if known is None or self._clock() > known[0]:
            known = self._sites[site] = (
                self._clock() + _KEPT_S,
                asyncio.create_task(self._read(site)),
            )
        rules = await asyncio.shield(known[1])
        delay_s = rules.crawl_delay(USER_AGENT)
        if delay_s:
            self._fetcher.slow_down(url.host, min(float(delay_s), _MAX_CRAWL_DELAY_S))
        return rules.can_fetch(str(url), USER_AGENT)

    async def _read(self, site: str) -> Protego:
        try:
            page = await self._fetcher.fetch(
                f"{site}/robots.txt",
                accept=frozenset({"text/plain"}),
                max_bytes=_MAX_BYTES,
                cut=True,
            )
        except FetchRefusedError:
            # No rules (404 and its like, a page in place of the file) forbid nothing; an address
            # that may not be fetched fails again later.
            return _ALL
        except FetchFailedError:
            # The site is in trouble: leave it alone, and ask again soon.
            known = self._sites.get(site)
            if known is not None:
                self._sites[site] = (self._clock() + _FAILURE_KEPT_S, known[1])
            return _NOTHING
        return Protego.parse(page.content.decode("utf-8", "replace"))
