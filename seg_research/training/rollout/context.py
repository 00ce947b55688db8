"""What the agent loops of one worker process share: settings, recipe, tools, scoring, log and
guards. They share one event loop, too; nothing that computes or writes for more than a moment may
run on it, as that would stop every episode of the process.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, OmegaConf

from seg_common.errors import UsageError
from seg_research.data.sample import Sample
from seg_research.episode.tool import Tool
from seg_research.episode.transcript import Transcript
from seg_research.recipes.registry import build_recipe, settings_from
from seg_research.rewards.rubric import Score
from seg_research.rewards.shaping import OverlongSettings
from seg_research.search.client import SearchClient
from seg_research.training.launch.config import plain
from seg_research.training.learner.guards import Guards, GuardSettings
from seg_research.training.rollout.ray_image_ref import ImageLender
from seg_research.training.rollout.scoring import EpisodeScorer
from seg_research.training.rollout.shared_client import SharedSearchClient
from seg_research.training.rollout.trajectory_log import TrajectoryLog


class RolloutContext:
    """What is built once a process."""

    def __init__(self, config: DictConfig) -> None:
        """Read the `seg` part of the run's configuration."""
        seg, run_dir = config.seg, Path(config.seg.run_dir)
        self.settings = settings_from(plain(seg.episode), "seg.episode")
        self.recipe = build_recipe(self.settings)
        self.rollout = OmegaConf.create(plain(config.actor_rollout_ref.rollout))
        """verl's rollout settings with every reference resolved: looked up in the run's
        configuration, each takes a millisecond every time.
        """
        self.lender = ImageLender()
        self.scorer = EpisodeScorer(
            self.recipe.rubric,
            OverlongSettings(**plain(seg.overlong)),
            self.settings.limits.max_response_tokens,
        )
        self.guards = Guards(GuardSettings(**plain(seg.guards)))
        self._log = TrajectoryLog(run_dir, self.recipe.rubric.final, with_tokens=seg.log_tokens)
        self._client = SharedSearchClient(lambda: SearchClient.of(self.settings.search))

    @asynccontextmanager
    async def tools(self) -> AsyncGenerator[tuple[Tool, ...]]:
        """Lend one episode the tools, connected to the search server."""
        async with self._client.use() as client:
            yield self.recipe.connect(client)

    async def record(
        self, sample: Sample, transcript: Transcript, score: Score, row: dict[str, Any]
    ) -> None:
        """Log an episode, and let the guards count it when it is there.

        Raises:
            UsageError: a guard wants the run stopped.
        """
        await self._log.append(sample, transcript, score, row)
        reason = self.guards.count(transcript)
        if reason:
            raise UsageError(reason)


_contexts: WeakKeyDictionary[Any, RolloutContext] = WeakKeyDictionary()


def context_of(server_client: Any, make: Callable[[], RolloutContext]) -> RolloutContext:
    """Return the context of a worker, made on first use. verl makes an agent loop a trajectory, and
    the client of the rollout servers is what all loops of a worker are given: the context lives as
    long as that client.
    """
    found = _contexts.get(server_client)
    if found is None:
        found = _contexts[server_client] = make()
    return found
