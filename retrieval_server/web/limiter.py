"""How fast one provider may be asked, by all clients of the server together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from retrieval_server.sources import UnavailableError


class Limiter:
    """Spaces calls evenly and bounds how many run at once. Belongs to one event loop."""

    def __init__(
        self, name: str, *, rate_per_s: float, concurrency: int, max_wait_s: float = 20.0
    ) -> None:
        """Allow `rate_per_s` calls a second; a caller who would wait for longer than `max_wait_s`
        is turned away at once.
        """
        self._name, self._interval_s, self._max_wait_s = name, 1 / rate_per_s, max_wait_s
        self._running = asyncio.Semaphore(concurrency)
        self._next = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn and hold it.

        Raises:
            UnavailableError: too many wait already; tells when to come back.
        """
        now = asyncio.get_running_loop().time()
        wait_s = max(0.0, self._next - now)
        if wait_s > self._max_wait_s:
            raise UnavailableError(
                f"{self._name}: too many searches wait for their turn", retry_after_s=wait_s
            )
        self._next = now + wait_s + self._interval_s
        await asyncio.sleep(wait_s)
        async with self._running:
            yield

    def pause(self, seconds: float) -> None:
        """Let nobody begin for a while, as a provider demanded."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)
