"""One client for the episodes of a process, and none when none of them runs."""

import asyncio

from seg_research.training.rollout.shared_client import SharedSearchClient


class Client:
    """Takes a moment to close."""

    def __init__(self):
        self.closed = False

    async def __aexit__(self, kind, error, trace):
        await asyncio.sleep(0)
        self.closed = True


async def test_episodes_share_a_client_that_the_last_of_them_closes():
    made: list[Client] = []

    def make():
        made.append(Client())
        return made[-1]

    shared = SharedSearchClient(make)
    assert made == []
    async with shared.use() as first:
        async with shared.use() as second:
            assert first is second
        assert not first.closed
    assert first.closed
    async with shared.use() as third:
        assert third is not first
    assert [client.closed for client in made] == [True, True]


async def test_an_episode_that_begins_while_a_client_is_closed_gets_another():
    shared = SharedSearchClient(Client)
    closing = asyncio.Event()

    async def ends():
        async with shared.use() as client:
            pass
        closing.set()
        return client

    async def begins():
        async with shared.use() as client:
            await closing.wait()
            assert not client.closed
            return client

    first, second = await asyncio.gather(ends(), begins())
    assert first.closed
    assert second.closed


async def test_a_failed_episode_gives_its_client_back():
    shared = SharedSearchClient(Client)
    try:
        async with shared.use() as client:
            raise KeyError("in the episode")
    except KeyError:
        pass
    assert client.closed
