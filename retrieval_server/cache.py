"""Answers of sources, kept in memory: what they are found by, and how long they stay."""

from __future__ import annotations

import hashlib
import json
import math
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult

_DEFAULT_MEMORY_BYTES = 64 << 20
_ENTRY_OVERHEAD_BYTES = 500


@dataclass(frozen=True, slots=True)
class Key:
    """What was asked of whom. `options` names whatever else changes the answer, browsing for one."""

    provider: str
    kind: CollectionKind
    query: str
    top_k: int
    options: str = ""

    @classmethod
    def of(
        cls, provider: str, kind: CollectionKind, query: str, top_k: int, options: str = ""
    ) -> Key:
        """Make a key of the normalised query."""
        return cls(provider, kind, normalised(query), top_k, options)

    @property
    def digest(self) -> str:
        """Address of the answer."""
        parts = json.dumps([self.provider, self.kind, self.query, self.top_k, self.options])
        return hashlib.sha256(parts.encode("ascii")).hexdigest()


def normalised(query: str) -> str:
    """Bring spellings that no source tells apart to one: composed characters, single spaces, no
    halves of surrogate pairs.
    """
    whole = query.encode("utf-8", "replace").decode("utf-8")
    return " ".join(unicodedata.normalize("NFC", whole).split())


@dataclass(frozen=True, slots=True)
class CachedSearch:
    """What a source found; `note` tells why it may be less than there is."""

    hits: tuple[SearchResult, ...]
    note: str | None = None


class SearchCache(Protocol):
    """Keeps answers for a while."""

    def look(self, key: Key) -> CachedSearch | None:
        """Return what is fresh and known without waiting."""
        ...

    async def get(self, key: Key) -> CachedSearch | None:
        """Return what is known and fresh."""
        ...

    async def put(self, key: Key, answer: CachedSearch) -> None:
        """Keep an answer; failing to is logged and no reason to withhold it."""
        ...


class MemoryCache:
    """The most recently used answers, up to a size."""

    def __init__(
        self,
        *,
        ttl_s: float = math.inf,
        max_bytes: int = _DEFAULT_MEMORY_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty cache; `clock` tells seconds since the epoch."""
        self._ttl_s, self._max_bytes, self._clock = ttl_s, max_bytes, clock
        self._entries: OrderedDict[Key, tuple[float, int, CachedSearch]] = OrderedDict()
        self._num_bytes = 0

    def look(self, key: Key) -> CachedSearch | None:
        """Return what is fresh and known."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() - entry[0] > self._ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[2]

    def keep(self, key: Key, answer: CachedSearch, made_at: float | None = None) -> None:
        """Keep an answer and forget the ones that were not asked for longest."""
        if key in self._entries:
            self._drop(key)
        size = _num_bytes(key, answer)
        self._entries[key] = (self._clock() if made_at is None else made_at, size, answer)
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def get(self, key: Key) -> CachedSearch | None:
        """Return what is known and fresh."""
        return self.look(key)

    async def put(self, key: Key, answer: CachedSearch) -> None:
        """Keep an answer."""
        self.keep(key, answer)

    def _drop(self, key: Key) -> None:
        self._num_bytes -= self._entries.pop(key)[1]


def _num_bytes(key: Key, answer: CachedSearch) -> int:
    texts = sum(
        len(hit.id) + len(hit.title) + len(hit.text) + len(hit.source) for hit in answer.hits
    )
    return (
        _ENTRY_OVERHEAD_BYTES * (1 + len(answer.hits))
        + len(key.query)
        + 2 * texts
        + sum(len(hit.image or b"") for hit in answer.hits)
    )
