"""Local corpora as a source: look-ups of concurrent requests are embedded and ranked together, on
one worker thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from retrieval_server.corpus.batching import Batcher, Lookup, Matches
from retrieval_server.corpus.collection import Collection, Entry
from retrieval_server.corpus.index import LocalIndex
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.vectors import Ranked
from retrieval_server.encoder import QueryVectorCache
from retrieval_server.jpeg import jpeg_of_file
from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult


class LocalSource:
    """Searches indexes that were built with the encoder of one `QueryVectorCache`. Between `start`
    and `stop` it belongs to one event loop.
    """

    name = "local"

    def __init__(
        self,
        indexes: Mapping[CollectionKind, LocalIndex],
        vectors: QueryVectorCache | None,
        retriever: Retriever,
        *,
        max_waiting: int = 512,
    ) -> None:
        """Serve corpora; look-ups beyond `max_waiting` are refused.

        Raises:
            UsageError: an index was not built for this retriever.
        """
        self._collections: dict[CollectionKind, Collection] = {
            kind: index.collection for kind, index in indexes.items()
        }
        self._rankers = {kind: index.ranker(retriever) for kind, index in indexes.items()}
        self._vectors = vectors
        self.retriever = retriever
        self.batcher = Batcher(self._answer, max_waiting=max_waiting)
        self._running: asyncio.Task[None] | None = None

    @property
    def kinds(self) -> frozenset[CollectionKind]:
        """The collections that are there."""
        return frozenset(self._collections)

    @property
    def encoder_name(self) -> str:
        """What embeds, or how else entries are found."""
        return self._vectors.encoder.name if self._vectors else str(self.retriever)

    @property
    def is_ready(self) -> bool:
        """Whether a look-up would be taken now."""
        return self._running is not None and not self._running.done() and not self.batcher.is_full

    def size(self, kind: CollectionKind) -> int:
        """Count the entries of a collection; 0 where there is none."""
        return len(self._collections.get(kind, ()))

    async def start(self) -> None:
        """Begin to answer."""
        self._running = asyncio.create_task(self.batcher.run())

    async def stop(self) -> None:
        """Answer no more."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def find(self, query: str, kind: CollectionKind, top_k: int) -> list[SearchResult]:
        """Return the best entries, best first. Cancelling it before its turn has come costs
        nothing.

        Raises:
            OverloadedError: too many look-ups wait already.
        """
        (ranked,) = await self.batcher.submit(Lookup(kind, (query,), top_k))
        if kind is CollectionKind.IMAGE:
            return await asyncio.to_thread(self._found, kind, ranked)
        return self._found(kind, ranked)

    async def passages(self, queries: Sequence[str], top_k: int) -> list[list[tuple[Entry, float]]]:
        """Return for each query the best passages as the corpus holds them, and their scores.

        Raises:
            OverloadedError: too many look-ups wait already.
        """
        collection = self._collections[CollectionKind.TEXT]
        matches = await self.batcher.submit(Lookup(CollectionKind.TEXT, tuple(queries), top_k))
        return [[(collection[row], score) for row, score in ranked] for ranked in matches]

    def _answer(self, lookups: Sequence[Lookup]) -> list[Matches]:
        if self._vectors is not None:
            # all kinds and depths in one go
            self._vectors.embed([query for lookup in lookups for query in lookup.queries])
        asked: dict[tuple[CollectionKind, int], dict[str, list[Ranked]]] = {}
        for lookup in lookups:
            asked.setdefault((lookup.kind, lookup.top_k), {}).update(
                {query: [] for query in lookup.queries}
            )
        for (kind, top_k), found in asked.items():
            queries = list(found)
            found.update(zip(queries, self._rankers[kind].rank(queries, top_k), strict=True))
        return [
            [asked[lookup.kind, lookup.top_k][query] for query in lookup.queries]
            for lookup in lookups
        ]

    def _found(self, kind: CollectionKind, ranked: Sequence[Ranked]) -> list[SearchResult]:
        collection = self._collections[kind]
        return [_found(collection, collection[row], score) for row, score in ranked]


def _found(collection: Collection, entry: Entry, score: float) -> SearchResult:
    image = None if entry.image is None else jpeg_of_file(entry.image)
    return SearchResult(
        str(entry.id), entry.title, entry.text, collection.source_of(entry), score, image
    )
