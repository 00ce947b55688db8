"""One search client for all episodes that run at a time, closed when the last of them has ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from seg_research.search.client import SearchClient


class SharedSearchClient:
    """Opens a client with the first episode that wants one. Its connections belong to the event
    loop that the episodes of a process share.
    """

    def __init__(self, make: Callable[[], SearchClient]) -> None:
        """Nothing is opened yet."""
        self._make = make
        self._client: SearchClient | None = None
        self._num_users = 0

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[SearchClient]:
        """Lend the client to one episode."""
        if self._client is None:
            self._client = self._make()
        client = self._client
        self._num_users += 1
        try:
            yield client
        finally:
            self._num_users -= 1
            if self._num_users == 0:
                # Before the client is closed, which takes a moment: an episode that begins
                # meanwhile gets another one.
                self._client = None
                await client.__aexit__(None, None, None)
