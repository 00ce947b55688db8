"""Run a policy over samples and write `predictions.jsonl`: one line a rollout, in the order of the
data, safe against a kill at any moment.

Rollouts run in fixed groups. A group that was interrupted is run again as a whole and only its
missing lines are written, so a resumed file equals an uninterrupted one byte for byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from seg_common.errors import InfraError, UsageError
from seg_common.files import append_jsonl, read_jsonl, repair_jsonl, write_atomic
from seg_research.data.sample import Sample
from seg_research.episode.policy import Policy
from seg_research.episode.run import run_episode
from seg_research.episode.tool import Tool
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.recipes.recipe import Recipe
from seg_research.records.image_store import ImageStore
from seg_research.records.schema import PredictionRow
from seg_research.records.writer import episode_row, with_timings

logger = logging.getLogger(__name__)

IMAGE_FOLDER = "images"
"""Beside the predictions: images that no file gives as they were shown."""

Task = tuple[Sample, int]
"""A sample and the number of the rollout."""


@dataclass(frozen=True, slots=True)
class PredictionRun:
    """What to run.

    Attributes:
        make_policy: gives the policy of group 0, 1, …
        identity: whatever shapes the result (model, data, seed, group size, …); a file written
            under another identity is not continued.
        num_rollouts: rollouts of each sample.
        group_size: rollouts that run together; what is generated together shapes the last digits,
            and so the result.
        max_infra_share: stop when a larger share of episodes is ended by failing services.
        timings: add wall-clock seconds to each line; such files differ from run to run.
    """

    recipe: Recipe
    tools: Sequence[Tool]
    make_policy: Callable[[int], Policy]
    identity: dict[str, Any]
    num_rollouts: int = 1
    group_size: int = 16
    max_infra_share: float = 0.05
    timings: bool = False


@dataclass(frozen=True, slots=True)
class PredictionCount:
    """How a run ended: lines now in the file, lines written by this call, episodes lost to failing
    services (run again to retry them).
    """

    total: int
    written: int
    failed: int


async def predict(
    run: PredictionRun, samples: Sequence[Sample], out: Path, progress: Callable[[int], object]
) -> PredictionCount:
    """Predict what `out` does not hold yet; `progress` is told how many rollouts were settled.

    Raises:
        UsageError: `out` was written under other settings, a frame is unreadable, or the disk is
            full.
        InfraError: too many episodes were ended by failing services.
    """
    tasks = list(product(samples, range(run.num_rollouts)))
    done = claim(out, run.identity)
    written = failed = 0
    for index, start in enumerate(range(0, len(tasks), run.group_size)):
        group = tasks[start : start + run.group_size]
        missing = [task for task in group if _key(task) not in done]
        if missing:
            transcripts = await _run_group(run, group, index)
            for task, transcript in zip(group, transcripts, strict=True):
                if _key(task) in done:
                    continue
                if transcript.stop is StopReason.INFRA:
                    failed += 1
                    logger.warning("sample %s: %s", task[0].sample_id, transcript.error)
                    continue
                row = _row(run, task, transcript, ImageStore(out.parent / IMAGE_FOLDER))
                append_jsonl(out, row.to_json())
                written += 1
            _check_services(failed, written, run.max_infra_share, transcripts)
        progress(len(group))
    return PredictionCount(len(done) + written, written, failed)


async def _run_group(run: PredictionRun, group: Sequence[Task], index: int) -> list[Transcript]:
    policy = run.make_policy(index)
    begun = await asyncio.gather(
        *(run.recipe.begin(sample, policy, rollout) for sample, rollout in group)
    )
    # All conversations join before the first one starts: the group's batches must not depend on
    # timing.
    episodes = [
        (episode, policy.converse(episode.sample, rollout))
        for episode, (_, rollout) in zip(begun, group, strict=True)
    ]
    return list(
        await asyncio.gather(
            *(run_episode(episode, conversation, run.tools) for episode, conversation in episodes)
        )
    )


def _row(
    run: PredictionRun, task: Task, transcript: Transcript, images: ImageStore
) -> PredictionRow:
    sample, rollout = task
    score = run.recipe.rubric.score(transcript, sample.truth)
    row = episode_row(
        sample, transcript, run.recipe.final(transcript), score, rollout=rollout, images=images
    )
    return with_timings(row, transcript) if run.timings else row


def _key(task: Task) -> tuple[str, int]:
    return task[0].sample_id, task[1]


def _finished(out: Path) -> set[tuple[str, int]]:
    if not out.is_file():
        return set()
    cut = repair_jsonl(out)
    if cut:
        logger.warning(
            "%s: the last line was unfinished (%d bytes); it is predicted again", out, cut
        )
    return {(str(row["id"]), int(row["sample_idx"])) for row in read_jsonl(out)}


def claim(out: Path, identity: dict[str, Any]) -> set[tuple[str, int]]:
    """Take a file for a run, which a note beside it describes; return the (sample id, rollout
    number) of the lines it holds already.

    Raises:
        UsageError: it holds predictions of a run with other settings.
    """
    note = out.with_suffix(".run.json")
    mine: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    if out.is_file() and out.stat().st_size:
        theirs: dict[str, Any] = (
            json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        )
        differing = sorted(
            key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)
        )
        if differing:
            raise UsageError(
                f"{out}: was written with other settings ({', '.join(differing)}); "
                "choose another --out or delete the file"
            )
    write_atomic(note, json.dumps(mine, indent=1, sort_keys=True) + "\n")
    return _finished(out)


def _check_services(
    failed: int, written: int, limit: float, transcripts: Sequence[Transcript]
) -> None:
    if failed > max(1, limit * (failed + written)):
        last = next((t.error for t in reversed(transcripts) if t.error), "")
        raise InfraError(
            f"{failed} of {failed + written} episodes were ended by a failing service; "
            f"what succeeded is kept. The last one: {last}"
        )


def fingerprint(path: Path) -> str:
    """Hash the content of a file, or of the weights and configuration of a checkpoint folder.

    Raises:
        UsageError: there is nothing of that name.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    files = (
        [path]
        if path.is_file()
        else sorted(p for p in path.iterdir() if p.suffix in {".json", ".safetensors", ".bin"})
    )
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
