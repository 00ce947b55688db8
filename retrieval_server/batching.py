"""Look-ups of concurrent requests, answered together.

There is no waiting window: whatever arrived while one batch was being answered is the next one. A lone request waits for nobody, and
batches grow with the load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval_server.index import Match
from retrieval_server.schemas import CollectionKind

Matches = list[list[Match]]
"""Of one look-up: a ranked list per query."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one request asks."""

    kind: CollectionKind
    queries: tuple[str, ...]
    top_k: int


class OverloadedError(Exception):
    """Too many look-ups wait already; come back later."""


class Batcher:
    """Hands look-ups to a blocking function on a worker thread, one batch at a time, with a bounded queue before it."""

    def __init__(self, answer: Callable[[Sequence[Lookup]], list[Matches]], *, max_waiting: int = 512, max_batch_queries: int = 64) -> None:
        """Wrap `answer`, which returns one result per look-up, in order."""
        self._answer = answer
        self._max_batch_queries = max_batch_queries
        self._waiting: asyncio.Queue[tuple[Lookup, asyncio.Future[Matches]]] = asyncio.Queue(max_waiting)

    async def submit(self, lookup: Lookup) -> Matches:
        """Wait for the answer to a look-up.

        Raises:
            OverloadedError: the queue is full.
        """
        answered: asyncio.Future[Matches] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((lookup, answered))
        except asyncio.QueueFull:
            raise OverloadedError from None
        return await answered

    async def run(self) -> None:
        """Answer batches until cancelled; a failing batch fails its own requests and no other."""
        while True:
            batch = await self._next_batch()
            answering = asyncio.to_thread(self._answer, [lookup for lookup, _ in batch])
            (work,), _ = await asyncio.wait([asyncio.create_task(answering)])
            problem = work.exception()
            results = work.result() if problem is None else []
            for index, (_, answered) in enumerate(batch):
                if answered.done():  # its client left
                    continue
                if problem is not None:
                    answered.set_exception(problem)
                else:
                    answered.set_result(results[index])

    async def _next_batch(self) -> list[tuple[Lookup, asyncio.Future[Matches]]]:
        batch = [await self._waiting.get()]
        num_queries = len(batch[0][0].queries)
        while num_queries < self._max_batch_queries and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
            num_queries += len(batch[-1][0].queries)
        return batch
