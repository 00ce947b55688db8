"""What the agent loops of one worker process share, and the run's own log of trajectories."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from seg_common.errors import UsageError
from seg_common.files import append_jsonl, write_atomic
from seg_research.data.sample import GroundTruth, Sample
from seg_research.episode.transcript import Transcript
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.settings import settings_from
from seg_research.records.writer import episode_row
from seg_research.rewards.rubric import Score
from seg_research.rewards.shaping import OverlongSettings, shaped
from seg_research.search.client import SearchClient
from seg_research.tools.base import Tool
from seg_research.training.learner.guards import Guards, GuardSettings
from seg_research.training.rollout.text_encoder import HostEncoder

STOP_FILE = "stopped.txt"
"""Holds the reason when a guard ends the run; the launcher watches for it."""

AGENT_NAME = "seg_research"
"""verl's name for our agent loop."""
VALIDATION_KEY = "validation"
"""Tells rows of `data.val_files` from those that are trained on; verl does not tell agent loops."""

_Result = TypeVar("_Result")


class Host:
    """Recipe, tools, guards and log of one process. Its agent loops share one event loop, so that
    one search client serves them all.

    Nothing that computes or writes for more than a moment runs on that loop: it would stop every
    episode of the process.
    """

    _instance: ClassVar[Host | None] = None

    def __init__(self, config: DictConfig) -> None:
        """Read the `seg` part of the run's configuration."""
        seg = config.seg
        self.settings = settings_from(_plain(seg.episode), "seg.episode")
        self.run_dir = Path(seg.run_dir)
        self.guards = Guards(GuardSettings(**_plain(seg.guards)))
        self.rollout = OmegaConf.create(_plain(config.actor_rollout_ref.rollout))
        """verl's rollout settings with every reference resolved: looked up in the run's
        configuration, each takes a millisecond anew.
        """
        self._overlong = OverlongSettings(**_plain(seg.overlong))
        self._log_tokens: bool = seg.log_tokens
        self._search = _plain(seg.search)
        self._client: SearchClient | None = None
        self._encoder = HostEncoder(
            self.settings.rewards.encoder, self.settings.rewards.encoder_threads
        )
        # One thread each: embeddings are shared between scores, lines must not mix, and a slow disk
        # must not hold up scores.
        self._judge = ThreadPoolExecutor(1, "judge")
        self._writer = ThreadPoolExecutor(1, "writer")
        self._log = self.run_dir / "trajectories" / f"worker-{os.getpid()}.jsonl"
        self._log.parent.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of_process(cls, config: DictConfig) -> Host:
        """Return this process's host, made on first use."""
        if cls._instance is None:
            cls._instance = cls(config)
        return cls._instance

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the settings name."""
        return self.settings.build_recipe()

    async def tools(self) -> tuple[Tool, ...]:
        """Return the tools, connected to the search server."""
        if self._client is None:
            self._client = SearchClient(
                self._search["url"],
                deadline_s=self._search["deadline_s"],
                browse=self._search["browse"],
            )
            await self._client.__aenter__()
        return self.recipe.build_tools(self._client, self.settings.view)

    async def score(
        self, transcript: Transcript, truth: GroundTruth | None, *, validation: bool = False
    ) -> Score:
        """Score an episode, shaped by its length where it is trained on.

        What has to be embedded for it is embedded elsewhere on this host, together with what other
        episodes need.
        """
        rubric = self.recipe.rubric
        unknown = await _in(self._judge, lambda: rubric.unknown_texts([(transcript, truth)]))
        vectors_ND = await self._encoder.encode(unknown) if unknown else None
        shape = not validation and transcript.tokens is not None
        return await _in(
            self._judge, lambda: self._score(transcript, truth, unknown, vectors_ND, shape=shape)
        )

    def _score(
        self,
        transcript: Transcript,
        truth: GroundTruth | None,
        texts: list[str],
        vectors_ND: NDArray[np.float32] | None,
        *,
        shape: bool,
    ) -> Score:
        rubric = self.recipe.rubric
        if vectors_ND is not None and rubric.similarity is not None:
            rubric.similarity.add(texts, vectors_ND)
        score = rubric.score(transcript, truth)
        if not shape or transcript.tokens is None:
            return score
        return shaped(
            score,
            transcript,
            len(transcript.tokens.response_ids),
            self.settings.limits.max_response_tokens,
            self._overlong,
        )

    async def record(
        self, sample: Sample, transcript: Transcript, score: Score, row: dict[str, Any]
    ) -> None:
        """Append the episode to this worker's log, and let the guards count it when it is there.

        Raises:
            UsageError: a guard wants the run stopped.
        """
        await _in(self._writer, lambda: self._write(sample, transcript, score, row))
        reason = self.guards.count(transcript)
        if reason:
            raise UsageError(reason)

    def _write(
        self, sample: Sample, transcript: Transcript, score: Score, row: dict[str, Any]
    ) -> None:
        prediction, rollout = final(transcript), int(row["session_id"])
        record = episode_row(sample, transcript, prediction, score, rollout=rollout).to_json()
        trace = transcript.tokens
        if trace is not None:
            record["num_response_tokens"], record["num_sampled_tokens"] = (
                len(trace.response_ids),
                sum(trace.response_mask),
            )
            if self._log_tokens:
                record["tokens"] = dataclasses.asdict(trace)
        where = {
            "global_step": int(row["global_steps"]),
            "uid": str(row["uid"]),
            VALIDATION_KEY: bool(row[VALIDATION_KEY]),
        }
        append_jsonl(self._log, {**where, **record})


async def _in(pool: ThreadPoolExecutor, work: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def stop_run(config: DictConfig, reason: str) -> UsageError:
    """Leave the reason for the launcher, which stops the run; return the error to raise here."""
    write_atomic(Path(config.seg.run_dir) / STOP_FILE, reason + "\n")
    return UsageError(reason)


def _plain(node: Any) -> dict[str, Any]:
    return dict(OmegaConf.to_container(node, resolve=True))  # type: ignore[arg-type]
