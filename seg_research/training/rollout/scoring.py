"""Episodes are scored off the event loop, with the embeddings that one encoder makes for all worker
processes of a machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Transcript
from seg_research.rewards.rubric import Rubric, Score
from seg_research.rewards.shaping import OverlongSettings, shaped
from seg_research.training.rollout.text_encoder import MachineEncoder

_Result = TypeVar("_Result")


class EpisodeScorer:
    """Scores episodes in one thread, as they share their embeddings."""

    def __init__(
        self,
        rubric: Rubric,
        overlong: OverlongSettings,
        max_response_tokens: int,
    ) -> None:
        """Nothing is loaded before a text has to be embedded."""
        self._rubric = rubric
        self._encoder = rubric.similarity and MachineEncoder(rubric.similarity.encoder)
        self._overlong, self._max_response_tokens = overlong, max_response_tokens
        self._thread = ThreadPoolExecutor(1, "scorer")

    async def score(
        self, transcript: Transcript, truth: GroundTruth | None, *, validation: bool = False
    ) -> Score:
        """Score an episode, shaped by its length where it is trained on.

        Raises:
            InfraError: the encoder's process died.
            UsageError: the encoder's model is not there.
        """
        unknown = await self._run(lambda: self._rubric.unknown_texts([(transcript, truth)]))
        vectors_ND = await self._encoder.encode(unknown) if unknown and self._encoder else None
        score = await self._run(lambda: self._score(transcript, truth, unknown, vectors_ND))
        if validation or transcript.tokens is None:
            return score
        num_tokens = len(transcript.tokens.response_ids)
        return shaped(score, transcript, num_tokens, self._max_response_tokens, self._overlong)

    def _score(
        self,
        transcript: Transcript,
        truth: GroundTruth | None,
        texts: list[str],
        vectors_ND: NDArray[np.float32] | None,
    ) -> Score:
        if vectors_ND is not None and self._rubric.similarity is not None:
            self._rubric.similarity.add(texts, vectors_ND)
        return self._rubric.score(transcript, truth)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
