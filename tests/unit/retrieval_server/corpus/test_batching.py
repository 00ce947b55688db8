import asyncio
import threading

import pytest

from retrieval_server.corpus.batching import Batcher, Lookup, OverloadedError
from retrieval_server.schemas import CollectionKind


def lookup(*queries):
    return Lookup(CollectionKind.TEXT, queries, 1)


class RequestMiddleware:
    """Answers with the queries themselves; the first batch waits until the gate opens."""

    def __init__(self):
        self.batches, self.entered, self.open = [], threading.Event(), threading.Event()

    def __call__(self, lookups):
        self.batches.append([q for one in lookups for q in one.queries])
        self.entered.set()
        assert self.open.wait(10)
        if any("boom" in one.queries for one in lookups):
            raise ValueError("boom")
        return [list(one.queries) for one in lookups]


async def start(batcher, gate):
    """Put one look-up into the worker, so that what follows has to wait."""
    running = asyncio.create_task(batcher.run())
    first = asyncio.create_task(batcher.submit(lookup("first")))
    assert await asyncio.to_thread(gate.entered.wait, 10)
    return running, first


async def submitted(batcher, *lookups):
    tasks = [asyncio.create_task(batcher.submit(one)) for one in lookups]
    await asyncio.sleep(0)
    return tasks


async def test_what_arrives_during_a_batch_is_the_next_batch():
    gate = RequestMiddleware()
    batcher = Batcher(gate)
    running, first = await start(batcher, gate)
    waiting = await submitted(batcher, lookup("a"), lookup("b", "c"), lookup("d"))
    gate.open.set()
    assert await asyncio.gather(first, *waiting) == [["first"], ["a"], ["b", "c"], ["d"]]
    assert gate.batches == [["first"], ["a", "b", "c", "d"]]
    running.cancel()


async def test_a_batch_is_bounded_in_queries():
    gate = RequestMiddleware()
    batcher = Batcher(gate, max_batch_queries=2)
    running, first = await start(batcher, gate)
    waiting = await submitted(batcher, *(lookup(q) for q in "abc"))
    gate.open.set()
    await asyncio.gather(first, *waiting)
    assert gate.batches == [["first"], ["a", "b"], ["c"]]
    running.cancel()


async def test_a_full_queue_refuses():
    gate = RequestMiddleware()
    batcher = Batcher(gate, max_waiting=1)
    running, first = await start(batcher, gate)
    waiting = await submitted(batcher, lookup("a"))
    with pytest.raises(OverloadedError):
        await batcher.submit(lookup("b"))
    gate.open.set()
    assert await asyncio.gather(first, *waiting) == [["first"], ["a"]]
    running.cancel()


async def test_a_failing_batch_fails_alone():
    gate = RequestMiddleware()
    batcher = Batcher(gate, max_batch_queries=1)
    running, first = await start(batcher, gate)
    waiting = await submitted(batcher, lookup("boom"), lookup("a"))
    gate.open.set()
    assert await first == ["first"]
    with pytest.raises(ValueError, match="boom"):
        await waiting[0]
    assert await waiting[1] == ["a"]
    running.cancel()


async def test_a_client_that_left_disturbs_nobody():
    gate = RequestMiddleware()
    batcher = Batcher(gate)
    running, first = await start(batcher, gate)
    left, stays = await submitted(batcher, lookup("left"), lookup("stays"))
    left.cancel()
    gate.open.set()
    assert await asyncio.gather(first, stays) == [["first"], ["stays"]]
    running.cancel()


async def test_what_nobody_waits_for_any_more_is_never_answered():
    gate = RequestMiddleware()
    batcher = Batcher(gate)
    running, first = await start(batcher, gate)
    left, stays = await submitted(batcher, lookup("left"), lookup("stays"))
    left.cancel()
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(first, stays)
    assert gate.batches == [["first"], ["stays"]]
    running.cancel()


async def test_batches_are_told_with_their_size():
    gate, told = RequestMiddleware(), []
    batcher = Batcher(gate)
    batcher.on_batch = lambda num_queries, seconds: told.append((num_queries, seconds >= 0))
    running, first = await start(batcher, gate)
    waiting = await submitted(batcher, lookup("a", "b"), lookup("c"))
    assert batcher.num_waiting == 2
    gate.open.set()
    await asyncio.gather(first, *waiting)
    assert told == [(1, True), (3, True)]
    running.cancel()
