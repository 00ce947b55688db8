"""Keep what is dear to make and will be wanted again, up to so many bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The most recently used values. Of several threads that want one that is not there, one makes
    it and the others wait.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start empty; a value larger than `max_bytes` is made and not kept."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: dict[Hashable, tuple[Value, int]] = {}
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, make: Callable[[], Value], size_of: Callable[[Value], int]
    ) -> Value:
        """Return the value of a key, made now if need be. Where `make` fails, those that waited try
        for themselves.
        """
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept[key] = self._kept.pop(key)
                    return self._kept[key][0]
                others = self._making.get(key)
                if others is None:
                    done = self._making[key] = threading.Event()
                    break
            others.wait()
        try:
            value = make()
            self._keep(key, value, size_of(value))
            return value
        finally:
            with self._lock:
                del self._making[key]
            done.set()

    def _keep(self, key: Hashable, value: Value, size: int) -> None:
        if size > self.max_bytes:
            return
        with self._lock:
            self._kept[key] = value, size
            self.num_bytes += size
            while self.num_bytes > self.max_bytes:
                _, dropped = self._kept.pop(next(iter(self._kept)))
                self.num_bytes -= dropped
