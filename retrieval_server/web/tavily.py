"""Tavily (https://docs.tavily.com): results made for models. POST /search, the key as a bearer
token; a basic search costs one credit.
"""

from __future__ import annotations

import httpx

from retrieval_server.schemas import CollectionKind
from retrieval_server.web.provider import JsonApi, WebHit, entries, image_hit, number_or, text_hit


class Tavily:
    """One account."""

    name = "tavily"
    kinds = frozenset(CollectionKind)
    max_results = 20

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float = 20.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the calls."""
        headers = {"Authorization": f"Bearer {key}"}
        self._api = JsonApi(
            self.name,
            base_url,
            headers=headers,
            secret=key,
            timeout_s=timeout_s,
            transport=transport,
        )

    async def ask(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        """Make one call; see `Provider`."""
        body = {"query": query, "search_depth": "basic", "max_results": num}
        if kind is CollectionKind.IMAGE:
            reply = await self._api.call(
                "POST",
                "/search",
                body={**body, "include_images": True, "include_image_descriptions": True},
            )
            return [
                image_hit(entry.get("description"), entry.get("url"), 1 / rank, entry.get("url"))
                for rank, entry in entries(reply, "images", self.name)
            ]
        reply = await self._api.call("POST", "/search", body=body)
        return [
            text_hit(
                entry.get("title"),
                entry.get("content"),
                entry.get("url"),
                number_or(entry.get("score"), 1 / rank),
            )
            for rank, entry in entries(reply, "results", self.name)
        ]

    async def check(self) -> None:
        """Ask how much of the plan is used, which costs nothing."""
        await self._api.call("GET", "/usage")

    async def close(self) -> None:
        """Close connections."""
        await self._api.close()
