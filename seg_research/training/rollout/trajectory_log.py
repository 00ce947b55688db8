"""The run's own log of trajectories, one file a worker process."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from seg_common.files import append_jsonl
from seg_research.core.prediction import Prediction
from seg_research.data.sample import Sample
from seg_research.episode.transcript import Transcript
from seg_research.records.writer import episode_row
from seg_research.rewards.rubric import Score
from seg_research.training.run_contract import TRAJECTORIES, VALIDATION_KEY


class TrajectoryLog:
    """Appends to this process's file, in one thread of its own: lines must not mix, and a slow disk
    must not stop the event loop, which all episodes of the process share.
    """

    def __init__(
        self, run_dir: Path, final: Callable[[Transcript], Prediction], *, with_tokens: bool
    ) -> None:
        """Make the folder; the file comes with the first line."""
        self._path = run_dir / TRAJECTORIES / f"worker-{os.getpid()}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._final = final
        self._with_tokens = with_tokens
        self._thread = ThreadPoolExecutor(1, "trajectory log")

    async def append(
        self, sample: Sample, transcript: Transcript, score: Score, row: Mapping[str, Any]
    ) -> None:
        """Append an episode; `row` is verl's."""
        write = self._write
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, write, sample, transcript, score, row)

    def _write(
        self, sample: Sample, transcript: Transcript, score: Score, row: Mapping[str, Any]
    ) -> None:
        prediction, rollout = self._final(transcript), int(row["session_id"])
        record = episode_row(sample, transcript, prediction, score, rollout=rollout).to_json()
        trace = transcript.tokens
        if trace is not None:
            record["num_response_tokens"] = len(trace.response_ids)
            record["num_sampled_tokens"] = sum(trace.response_mask)
            if self._with_tokens:
                record["tokens"] = dataclasses.asdict(trace)
        where = {
            "global_step": int(row["global_steps"]),
            "uid": str(row["uid"]),
            VALIDATION_KEY: bool(row[VALIDATION_KEY]),
        }
        append_jsonl(self._path, {**where, **record})
