"""What makes one system differ from another: its prompt, its grammar, its tools, what it rewards
and what its episodes finally claim. A recipe is a folder with one class derived from `Recipe`;
nothing outside that folder knows its grammar.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from seg_common.errors import UsageError
from seg_research.core.image_cache import ImageCache
from seg_research.core.prediction import Prediction
from seg_research.data.sample import Sample
from seg_research.episode.action import ParsedTurn
from seg_research.episode.episode import Episode
from seg_research.episode.escaping import Escaper
from seg_research.episode.grammar import Grammar
from seg_research.episode.policy import Policy
from seg_research.episode.tool import Tool, ToolDescription
from seg_research.episode.transcript import Message, Transcript
from seg_research.recipes.hooks import TrainerHooks
from seg_research.recipes.judge import Judge, RubricJudge
from seg_research.recipes.settings import EpisodeSettings
from seg_research.rewards.rubric import Rubric
from seg_research.tools.search import NoSearcher, Searcher


@dataclass(frozen=True, slots=True)
class ToolServices:
    """What the tools of a recipe may use.

    Attributes:
        searcher: client of the search server.
        escape: makes foreign text harmless for this recipe's policies.
    """

    searcher: Searcher = field(default_factory=NoSearcher)
    escape: Escaper = field(default_factory=Escaper)


class Recipe(ABC):
    """One system, as its settings have it."""

    settings_type: ClassVar[type[EpisodeSettings]] = EpisodeSettings
    """The settings that this recipe takes; a class of its own where it needs more."""

    def __init__(self, settings: EpisodeSettings) -> None:
        """Take the settings; nothing is loaded or connected yet."""
        self.settings = settings

    @cached_property
    def images(self) -> ImageCache:
        """Frames as they are shown, decoded once for all episodes of this recipe."""
        return ImageCache()

    @property
    def name(self) -> str:
        """Name by which it is found."""
        return self.settings.recipe

    @property
    @abstractmethod
    def grammar(self) -> Grammar:
        """How turns are read and written."""

    @property
    @abstractmethod
    def rubric(self) -> Rubric:
        """What is rewarded."""

    @abstractmethod
    def prompt(self, sample: Sample) -> tuple[Message, ...]:
        """Build what the policy is shown first; foreign text in it goes through `escape`.

        Raises:
            UsageError: a frame cannot be read.
        """

    @abstractmethod
    def tools(self, services: ToolServices) -> tuple[Tool, ...]:
        """Make the tools; without a call to any service."""

    @abstractmethod
    def final(self, transcript: Transcript) -> Prediction:
        """Read what an episode finally claims."""

    async def prepare(self, sample: Sample, policy: Policy, rollout: int = 0) -> Sample:
        """Prepare a sample before its prompt is built, perhaps by asking the policy."""
        return sample

    def demonstrate(self, sample: Sample) -> Sequence[ParsedTurn]:
        """Return the turns of an expert who knows the ground truth; what is behind them is the
        recipe's to say.

        Raises:
            UsageError: the recipe has no expert, or the sample no ground truth.
        """
        raise UsageError(f"recipe '{self.name}' has no scripted expert")

    def hostile_turns(self) -> Sequence[str]:
        """Return turns that a broken or malicious policy might say; none of them is final."""
        open_tags = [f"<{tag}>" for tag in sorted(self.grammar.tags)]
        nested = ["".join(open_tags), "".join(reversed(open_tags))]
        return ("", *(tag * 200 for tag in open_tags), *nested, *(f"{t} [" for t in open_tags))

    def judge(self, mode: str = "") -> Judge:
        """Return what scores recorded rollouts anew.

        Args:
            mode: one of the definitions that the recipe has, by default its own.

        Raises:
            UsageError: the recipe has no definitions of that name.
        """
        if mode:
            raise UsageError(f"recipe '{self.name}' has one definition of its rewards, no '{mode}'")
        return RubricJudge(self.rubric, self.grammar.read_action)

    def hooks(self) -> TrainerHooks:
        """Return what this recipe changes in the trainer; nothing by default."""
        return TrainerHooks()

    @cached_property
    def descriptions(self) -> tuple[ToolDescription, ...]:
        """What the tools tell about themselves."""
        return tuple(tool.describe() for tool in self.tools(ToolServices()))

    @cached_property
    def escape(self) -> Escaper:
        """Makes foreign text harmless: breaks the tags of the grammar and of the tools' results."""
        return Escaper(self.grammar.tags.union(*(about.tags for about in self.descriptions)))

    def connect(self, searcher: Searcher) -> tuple[Tool, ...]:
        """Return the tools of one host."""
        return self.tools(ToolServices(searcher, self.escape))

    async def begin(self, sample: Sample, policy: Policy, rollout: int = 0) -> Episode:
        """Prepare a sample and start an episode on it; the same in every host.

        Raises:
            UsageError: a frame cannot be read.
            InfraError: the policy or a service failed in the preparation.
        """
        prepared = await self.prepare(sample, policy, rollout)
        prompt = await asyncio.to_thread(self.prompt, prepared)
        return Episode(prepared, prompt, self.grammar, self.settings.limits)
