"""The barrier: batches depend on the group alone, and nobody waits for ever."""

import asyncio

import pytest

from seg_common.errors import InfraError

pytest.importorskip("torch", reason="the engine behind the barrier needs the train extra")
pytest.importorskip("transformers", reason="the engine behind the barrier needs the train extra")

from seg_research.policies.turn_barrier import TurnBarrier


class FakeEngine:
    """Answers each request with itself in capitals; fails or waits for a release if told so."""

    def __init__(self, *, error=None, gate=None):
        self.batches: list[list[str]] = []
        self.error, self.gate = error, gate

    async def run_batch(self, requests):
        self.batches.append(list(requests))
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        if self.error:
            raise self.error
        return [request.upper() for request in requests]


class Member:
    pass


def group(size: int, **options):
    engine, seeds = FakeEngine(**options), []
    lockstep, members = TurnBarrier(engine, seeds.append), [Member() for _ in range(size)]
    for member in members:
        lockstep.join(member)
    return engine, seeds, lockstep, members


async def converse(lockstep, member, name: str, turns: int, pauses: int = 0) -> list[str]:
    said = []
    for turn in range(turns):
        for _ in range(pauses):
            await asyncio.sleep(0)
        said.append(await lockstep.generate(member, f"{name}{turn}"))
    await lockstep.leave(member)
    return said


@pytest.mark.parametrize("pauses", [(0, 0, 0), (5, 0, 2), (0, 7, 1)])
async def test_batches_are_the_same_whoever_asks_first(pauses):
    engine, seeds, lockstep, members = group(3)
    turns = (3, 1, 2)
    said = await asyncio.gather(
        *(
            converse(lockstep, m, n, t, p)
            for m, n, t, p in zip(members, "abc", turns, pauses, strict=True)
        )
    )
    assert said == [["A0", "A1", "A2"], ["B0"], ["C0", "C1"]]
    assert engine.batches == [["a0", "b0", "c0"], ["a1", "c1"], ["a2"]]
    assert seeds == [0, 1, 2]


async def test_nothing_is_generated_before_everybody_has_asked():
    engine, _, lockstep, (first, second) = group(2)
    waiting = asyncio.create_task(lockstep.generate(first, "a"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.batches == []
    assert not waiting.done()
    assert await lockstep.generate(second, "b") == "B"
    assert await waiting == "A"


async def test_one_who_leaves_releases_the_others():
    engine, _, lockstep, (first, second) = group(2)
    waiting = asyncio.create_task(lockstep.generate(first, "a"))
    await asyncio.sleep(0)
    await lockstep.leave(second)
    assert await waiting == "A"
    assert engine.batches == [["a"]]


async def test_leaving_an_idle_group_generates_nothing():
    engine, _, lockstep, members = group(2)
    for member in members:
        await lockstep.leave(member)
    assert engine.batches == []


@pytest.mark.parametrize("error", [InfraError("out of memory"), ValueError("our bug")])
async def test_a_failure_reaches_everybody_who_waits(error):
    _, _, lockstep, members = group(3, error=error)
    results = await asyncio.gather(
        *(lockstep.generate(m, "x") for m in members), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(error)] * 3


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_one_who_is_cancelled_while_the_batch_runs_takes_nobody_along(cancelled):
    gate = asyncio.Event()
    engine, _, lockstep, members = group(3, gate=gate)
    tasks = [
        asyncio.create_task(lockstep.generate(m, n)) for m, n in zip(members, "abc", strict=True)
    ]
    while not engine.batches:
        await asyncio.sleep(0)
    tasks[cancelled].cancel()
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(cancelled), asyncio.CancelledError)
    assert results == [n.upper() for i, n in enumerate("abc") if i != cancelled]


async def test_one_who_is_cancelled_while_waiting_and_leaves_holds_nobody_up():
    engine, _, lockstep, (first, second, third) = group(3)
    waiting = asyncio.create_task(lockstep.generate(first, "a"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await lockstep.leave(first)
    async with asyncio.timeout(5):
        assert await asyncio.gather(
            lockstep.generate(second, "b"), lockstep.generate(third, "c")
        ) == ["B", "C"]
    assert engine.batches == [["b", "c"]]
