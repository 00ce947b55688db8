"""SearXNG (https://docs.searxng.org/dev/search_api.html): a metasearch engine that the user runs.
GET /search with format=json.
"""

from __future__ import annotations

import httpx

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import RefusedError, UnavailableError
from retrieval_server.web.provider import (
    CallError,
    JsonApi,
    KeyRefusedError,
    WebHit,
    entries,
    image_hit,
    number_or,
    one_line,
    text_hit,
)

_CATEGORY = {CollectionKind.TEXT: "general", CollectionKind.IMAGE: "images"}


class Searxng:
    """One instance."""

    name = "searxng"
    kinds = frozenset(CollectionKind)
    max_results = 20
    """An instance ignores the number and sends a page."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 20.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the calls."""
        self._api = JsonApi(self.name, base_url, timeout_s=timeout_s, transport=transport)

    async def ask(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        """Make one call; see `Provider`."""
        try:
            reply = await self._api.call(
                "GET",
                "/search",
                params={"q": query, "format": "json", "categories": _CATEGORY[kind]},
            )
        except CallError as failure:
            if isinstance(failure.error, KeyRefusedError):
                advice = (
                    "searxng: access refused; add 'json' to search.formats in the instance's"
                    " settings.yml"
                )
                raise CallError(RefusedError(advice)) from None
            raise
        if kind is CollectionKind.IMAGE:
            hits = [
                image_hit(
                    entry.get("title"),
                    entry.get("url"),
                    _score(entry, rank),
                    entry.get("img_src"),
                    entry.get("thumbnail_src"),
                )
                for rank, entry in entries(reply, "results", self.name)
            ]
        else:
            hits = [
                text_hit(
                    entry.get("title"), entry.get("content"), entry.get("url"), _score(entry, rank)
                )
                for rank, entry in entries(reply, "results", self.name)
            ]
        silent: object = reply.get("unresponsive_engines")
        if not hits and isinstance(silent, list) and silent:
            # Nothing was found because nobody looked: that must not be kept as an answer.
            raise CallError(
                UnavailableError(
                    "searxng: its engines did not answer"
                    f" ({one_line(str(reply['unresponsive_engines']), 150)})"
                ),
                retryable=True,
            )
        return hits[:num]

    async def check(self) -> None:
        """There is no key; see that somebody answers."""

    async def close(self) -> None:
        """Close connections."""
        await self._api.close()


def _score(entry: dict[str, object], rank: int) -> float:
    return number_or(entry.get("score"), 1 / rank)
