"""A cache bounded in bytes that threads share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from cachetools import LRUCache

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The most recently used values. Of several threads that want one that is not there, one makes
    it and the others wait.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start empty; a value larger than `max_bytes` is made and not kept."""
        self._kept: LRUCache[Hashable, tuple[Value, int]] = LRUCache(
            max_bytes, lambda kept: kept[1]
        )
        self._making: set[Hashable] = set()
        self._changed = threading.Condition()

    @property
    def num_bytes(self) -> int:
        """Size of what is kept."""
        return round(self._kept.currsize)

    def get(
        self, key: Hashable, make: Callable[[], Value], size_of: Callable[[Value], int]
    ) -> Value:
        """Return the value of a key, made now if need be. Where `make` fails, those that waited try
        for themselves.
        """
        with self._changed:
            self._changed.wait_for(lambda: key in self._kept or key not in self._making)
            if key in self._kept:
                return self._kept[key][0]
            self._making.add(key)
        try:
            value = make()
            with self._changed, suppress(ValueError):  # too large
                self._kept[key] = value, size_of(value)
            return value
        finally:
            with self._changed:
                self._making.discard(key)
                self._changed.notify_all()
