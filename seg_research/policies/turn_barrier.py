"""Generate for a group of conversations turn by turn together, so that the batch of a turn depends
on the group alone.

Padding changes the last digits of a model's output, and with them now and then a token. When a
batch is whoever happens to wait, a run that was killed and resumed differs from one that was not.
Here a turn is generated once every conversation still running has asked for it, in a fixed order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seg_research.policies.engine import Completion, Request, TransformersEngine, settle


class TurnBarrier:
    """A barrier in front of an engine for conversations that start together."""

    def __init__(self, engine: TransformersEngine, seed_turn: Callable[[int], object]) -> None:
        """Wrap an engine; `seed_turn` seeds the sampler before turn 0, 1, …"""
        self.engine = engine
        self._seed_turn = seed_turn
        self._members: list[int] = []
        self._waiting: dict[int, tuple[Request, asyncio.Future[Completion]]] = {}
        self._turn = 0

    def join(self, member: object) -> None:
        """Announce a conversation before the group starts."""
        self._members.append(id(member))

    async def leave(self, member: object) -> None:
        """Retire a finished conversation; the others no longer wait for it."""
        self._members.remove(id(member))
        await self._run_if_complete()

    async def generate(self, member: object, request: Request) -> Completion:
        """Ask for a turn; returns when the whole group has asked."""
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting[id(member)] = (request, future)
        await self._run_if_complete()
        return await future

    async def _run_if_complete(self) -> None:
        if not self._waiting or any(member not in self._waiting for member in self._members):
            return
        batch = [self._waiting[member] for member in self._members]
        self._waiting = {}
        self._seed_turn(self._turn)
        self._turn += 1
        # Shielded: whoever completed the group may be cancelled, and the others still want their
        # turn.
        await asyncio.shield(
            settle(
                self.engine.run_batch([request for request, _ in batch]),
                [future for _, future in batch],
            )
        )
