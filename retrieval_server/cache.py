"""Answers of sources, kept in memory: what they are found by, and how long they stay."""

from __future__ import annotations

import hashlib
import json
import math
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cachetools import TLRUCache

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult

_DEFAULT_MEMORY_BYTES = 64 << 20
_ENTRY_OVERHEAD_BYTES = 500


@dataclass(frozen=True, slots=True)
class Key:
    """What was asked of whom. `options` names whatever else changes the answer: browsing, say."""

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


@dataclass(frozen=True, slots=True)
class _Kept:
    found: CachedSearch
    made_at: float
    num_bytes: int


class MemoryCache:
    """The most recently used answers, up to a size."""

    def __init__(
        self,
        *,
        ttl_s: float = math.inf,
        max_bytes: int = _DEFAULT_MEMORY_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty cache; `clock` gives seconds since the epoch."""
        self._clock = clock
        # Entries age from when they were made, which may be long before they are put here, and are
        # fresh until their time is over, its last moment included.
        self._entries: TLRUCache[Key, _Kept, float] = TLRUCache(
            max_bytes,
            lambda _, entry, __: math.nextafter(entry.made_at + ttl_s, math.inf),
            clock,
            lambda entry: entry.num_bytes,
        )

    @property
    def num_bytes(self) -> int:
        """Estimated size of what is kept."""
        return round(self._entries.currsize)

    def look(self, key: Key) -> CachedSearch | None:
        """Return what is fresh and known."""
        entry = self._entries.get(key)
        return None if entry is None else entry.found

    def keep(self, key: Key, found: CachedSearch, made_at: float | None = None) -> None:
        """Keep an answer and drop the ones that were not asked for longest; one that is larger than
        the whole cache is not kept.
        """
        made_at = self._clock() if made_at is None else made_at
        self._entries.pop(key, None)
        with suppress(ValueError):  # too large
            self._entries[key] = _Kept(found, made_at, _num_bytes(key, found))

    async def get(self, key: Key) -> CachedSearch | None:
        """Return what is known and fresh."""
        return self.look(key)

    async def put(self, key: Key, answer: CachedSearch) -> None:
        """Keep an answer."""
        self.keep(key, answer)


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
