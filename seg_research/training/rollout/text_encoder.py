"""One sentence encoder a machine for all agent loops: verl runs these in several processes, each of
which would load its own.

The encoder lives in a named Ray actor of the node. Requests that arrive while a batch is being
computed are the next batch; a text that any worker has asked for is not computed again. Nothing is
loaded, and no actor started, before the first text has to be embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from seg_common.errors import InfraError
from seg_research.rewards.similarity import Similarity, TextEncoder


class EncoderService:
    """The actor's side: embeds what waits in one go."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Wrap an encoder that blocks."""
        self._similarity = Similarity(encoder)
        self._waiting: list[str] = []
        self._lock = asyncio.Lock()

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as float32 (N, D), rows of length 1."""
        self._waiting += texts
        async with self._lock:
            waiting, self._waiting = self._waiting, []
            await asyncio.to_thread(self._similarity.embed, [*waiting, *texts])
            return self._similarity.vectors(texts)


class MachineEncoder:
    """The agent loops' side; waits without blocking their event loop."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Name the encoder of this machine; it is sent to the actor, so that it must not be loaded
        yet (`LazyEncoder`).
        """
        self._encoder = encoder
        self._actor: Any = None

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as float32 (N, D), rows of length 1.

        Raises:
            InfraError: the encoder's process died.
            UsageError: the model is not there.
        """
        if self._actor is None:
            self._actor = _actor_of_node(self._encoder)
        try:
            return await self._actor.encode.remote(list(texts))
        except RayActorError as error:
            self._actor = None
            raise InfraError(f"the sentence encoder of this machine died: {error}") from None
        except RayTaskError as error:
            # Ray's own text is the actor's whole traceback.
            raise error.cause from None


def _actor_of_node(encoder: TextEncoder) -> Any:
    node = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(EncoderService)
        .options(
            name=f"seg_research_text_encoder_{node}",
            get_if_exists=True,
            # It waits most of the time; asking for a core could keep it waiting for ever on a node
            # that verl has filled.
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(encoder)
    )
