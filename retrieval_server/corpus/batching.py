"""Look-ups of concurrent requests, answered together.

There is no waiting window: whatever arrived while one batch was being answered is the next one. A
lone request waits for nobody, and batches grow with the load. A look-up whose client left or whose
deadline passed while it waited is dropped before it costs anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval_server.corpus.vectors import Ranked
from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import UnavailableError

_RETRY_AFTER_S = 1.0

Matches = list[list[Ranked]]
"""Of one look-up: a ranked list per query."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one request asks."""

    kind: CollectionKind
    queries: tuple[str, ...]
    top_k: int


class OverloadedError(UnavailableError):
    """Too many look-ups wait already; come back later. Replied as HTTP 429."""

    status = 429

    def __init__(self) -> None:
        super().__init__(
            "too many searches wait already; try again in a moment", retry_after_s=_RETRY_AFTER_S
        )


class Batcher:
    """Hands look-ups to a blocking function on a worker thread, one batch at a time, with a bounded
    queue before it.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Lookup]], list[Matches]],
        *,
        max_waiting: int = 512,
        max_batch_queries: int = 64,
    ) -> None:
        """Wrap `answer`, which returns one result per look-up, in order."""
        self._answer = answer
        self._max_batch_queries = max_batch_queries
        self._waiting: asyncio.Queue[tuple[Lookup, asyncio.Future[Matches]]] = asyncio.Queue(
            max_waiting
        )
        self.on_batch: Callable[[int, float], None] = lambda num_queries, seconds: None
        """Told after each batch how many queries it had and how long it took."""

    @property
    def num_waiting(self) -> int:
        """Look-ups that no batch has taken up yet."""
        return self._waiting.qsize()

    @property
    def is_full(self) -> bool:
        """Whether the next look-up would be refused."""
        return self._waiting.full()

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
            started = time.perf_counter()
            answering = asyncio.to_thread(self._answer, [lookup for lookup, _ in batch])
            (work,), _ = await asyncio.wait([asyncio.create_task(answering)])
            self.on_batch(
                sum(len(lookup.queries) for lookup, _ in batch), time.perf_counter() - started
            )
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
        batch: list[tuple[Lookup, asyncio.Future[Matches]]] = []
        num_queries = 0
        while not batch or (num_queries < self._max_batch_queries and not self._waiting.empty()):
            lookup, answered = await self._waiting.get()
            if not answered.done():  # else its client left
                batch.append((lookup, answered))
                num_queries += len(lookup.queries)
        return batch
