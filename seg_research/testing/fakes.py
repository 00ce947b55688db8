"""Stand-ins for what an episode talks to: a search server, a sentence encoder, and a policy that
says prepared turns and keeps a diary.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seg_common.errors import InfraError, SegResearchError
from seg_research.data.sample import Sample
from seg_research.episode.episode import Episode
from seg_research.episode.limits import Limits
from seg_research.episode.policy import Generation
from seg_research.episode.run import run_episode
from seg_research.episode.transcript import FinishReason, Message, TokenTrace, Transcript
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.registry import build_recipe
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.recipes.settings import EpisodeSettings, ViewSizes
from seg_research.search.client import SearchHit, SearchOutcome

SMALL_VIEW = ViewSizes(keyframe_px=64, search_image_px=32)


def passage(title: str = "Velmora", text: str = "Velmora paints in red.") -> SearchHit:
    """Return a text result."""
    return SearchHit(title, text, score=0.9, source="corpus.jsonl#1")


def picture(title: str = "Velmora", size: tuple[int, int] = (40, 20)) -> SearchHit:
    """Return an image result."""
    return SearchHit(
        title, "", score=0.9, source="images.jsonl#1", image=Image.new("RGB", size, (10, 60, 200))
    )


@dataclass(frozen=True, slots=True)
class WordEncoder:
    """Embeds a text by the words in it: texts are alike as far as they share words."""

    dimensions: int = 64

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as (N, D), rows of length 1."""
        vectors_ND = np.zeros((len(texts), self.dimensions), np.float32)
        for vector_D, text in zip(vectors_ND, texts, strict=True):
            for word in text.casefold().split() or [""]:
                vector_D[zlib.crc32(word.encode("utf-8", "replace")) % self.dimensions] += 1
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


@dataclass(slots=True)
class FakeSearcher:
    """Answers every query with the same hits, or fails every query with the same error, and
    remembers what it was asked.

    Attributes:
        hits: what is found; text and image searches alike.
        error: raised instead, where given.
        asked: (query, kind, top_k) of each call.
    """

    hits: Sequence[SearchHit] = (passage(),)
    error: SegResearchError | None = None
    asked: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])

    async def search(self, query: str, kind: str, top_k: int) -> SearchOutcome:
        """Answer or fail as told."""
        self.asked.append((query, kind, top_k))
        if self.error is not None:
            raise self.error
        return SearchOutcome(tuple(self.hits))


@dataclass(slots=True)
class RecordingConversation:
    """Says prepared turns, then nothing, and records every call.

    Attributes:
        turns: what to say; a `Generation` where the text alone does not tell enough.
        fits: whether a message, the opening ones included, is admitted.
        fails_in: name of the method that raises `InfraError`.
        calls: names of the methods called, in order.
        shown: messages that were admitted.
        offered_tokens: the budget of each turn.
    """

    turns: Sequence[str | Generation] = ()
    fits: Callable[[Message], bool] = lambda message: True
    fails_in: str = ""
    calls: list[str] = field(default_factory=list[str])
    shown: list[Message] = field(default_factory=list[Message])
    offered_tokens: list[int] = field(default_factory=list[int])

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Admit the opening if every message of it fits."""
        self._called("open")
        if not all(map(self.fits, messages)):
            return False
        self.shown += messages
        return True

    async def generate(self, max_tokens: int) -> Generation:
        """Say the next turn."""
        self._called("generate")
        said = len(self.offered_tokens)
        self.offered_tokens.append(max_tokens)
        turn = self.turns[said] if said < len(self.turns) else ""
        return turn if isinstance(turn, Generation) else Generation(turn, FinishReason.STOP)

    async def observe(self, message: Message) -> bool:
        """Admit a message if it fits."""
        self._called("observe")
        if not self.fits(message):
            return False
        self.shown.append(message)
        return True

    def tokens(self) -> TokenTrace | None:
        """Return None: nothing was tokenised."""
        return None

    async def close(self) -> None:
        """Record that the conversation ended."""
        self._called("close")

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if method == self.fails_in:
            raise InfraError(f"{method} failed")


async def play(
    sample: Sample,
    turns: Sequence[str | Generation],
    *,
    searcher: FakeSearcher | None = None,
    limits: Limits | None = None,
    settings: EpisodeSettings | None = None,
) -> Transcript:
    """Run prepared turns through the real episode loop and the real tools of a recipe, with small
    images.
    """
    recipe = build_recipe(replace(settings or SegResearchSettings(), view=SMALL_VIEW))
    tools = recipe.connect(searcher or FakeSearcher())
    return await run_episode(
        start_episode(recipe, sample, limits or Limits()), RecordingConversation(turns), tools
    )


def start_episode(recipe: Recipe, sample: Sample, limits: Limits | None = None) -> Episode:
    """Start an episode on a sample as it is, without the recipe's preparation."""
    prompt = recipe.prompt(sample)
    return Episode(sample, prompt, recipe.grammar, limits or recipe.settings.limits)
