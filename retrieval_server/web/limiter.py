"""How fast one provider or one site may be asked, by all clients of the server together.

aiolimiter would not do: it neither tells how long a caller would wait, so that it could be turned
away, nor can a pause be put in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from retrieval_server.sources import UnavailableError


class Spacing:
    """Begins one thing at a time, evenly spaced and at most so many at once. Belongs to one event
    loop.
    """

    def __init__(self, interval_s: float, concurrency: int) -> None:
        """Leave `interval_s` between two beginnings."""
        self.interval_s = interval_s
        self._running = asyncio.Semaphore(concurrency)
        self._next = 0.0

    @property
    def wait_s(self) -> float:
        """How long whoever comes now would wait."""
        return max(0.0, self._next - asyncio.get_running_loop().time())

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn and hold it."""
        wait_s = self.wait_s
        self._next = asyncio.get_running_loop().time() + wait_s + self.interval_s
        await asyncio.sleep(wait_s)
        async with self._running:
            yield

    def pause(self, seconds: float) -> None:
        """Let nobody begin for a while."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class Limiter(Spacing):
    """The spacing of calls to one provider."""

    def __init__(
        self, name: str, *, rate_per_s: float, concurrency: int, max_wait_s: float = 20.0
    ) -> None:
        """Allow `rate_per_s` calls a second; a caller who would wait for longer than `max_wait_s`
        is turned away at once.
        """
        super().__init__(1 / rate_per_s, concurrency)
        self._name, self._max_wait_s = name, max_wait_s

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn and hold it.

        Raises:
            UnavailableError: too many wait already; tells when to come back.
        """
        wait_s = self.wait_s
        if wait_s > self._max_wait_s:
            raise UnavailableError(
                f"{self._name}: too many searches wait for their turn", retry_after_s=wait_s
            )
        async with super().turn():
            yield
