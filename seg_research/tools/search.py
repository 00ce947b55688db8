"""Look things up through the search server and lay the results out for the policy. Everything that
comes back is hostile text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Protocol

import pydantic
from PIL import Image

from seg_common.errors import InfraError, ToolError
from seg_research.data.sample import Sample
from seg_research.episode.action import Action
from seg_research.episode.escaping import Escaper
from seg_research.episode.texts import Part, fill, fill_text, joined, needs, tags_in
from seg_research.episode.tool import ToolDescription, ToolFunction, text_observation
from seg_research.episode.transcript import ImageRef, Message, Observation, Outcome, Text
from seg_research.search.client import SearchHit, SearchOutcome
from seg_research.search.settings import SearchSettings


class SearchKind(StrEnum):
    """Which collection a search looks in; the values are the names of the tool's functions."""

    TEXT = "text_search"
    IMAGE = "image_search"


_SERVER_KIND: dict[SearchKind, Literal["text", "image"]] = {
    SearchKind.TEXT: "text",
    SearchKind.IMAGE: "image",
}


@dataclass(frozen=True, slots=True)
class Search(Action):
    """Look something up."""

    tool: SearchKind
    query: str
    kind: ClassVar[str] = "search"


class Searcher(Protocol):
    """What this tool needs of a search client."""

    async def search(self, query: str, kind: Literal["text", "image"], top_k: int) -> SearchOutcome:
        """Look a query up.

        Raises:
            ToolError: the query is unusable.
            InfraError: the service failed after its retries.
        """
        ...


class NoSearcher:
    """Stands where no search server is configured."""

    async def search(self, query: str, kind: Literal["text", "image"], top_k: int) -> SearchOutcome:
        """Refuse.

        Raises:
            InfraError: always.
        """
        raise InfraError("no search server: start one, or name the address of one that runs")


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid"})
class SearchTexts:
    """What the tool says to the policy.

    Attributes:
        text_search, image_search: what the two functions do, in a few words.
        results: frame of what was found.
        hit, image_hit: one result, with its line break; of text, and of images.
        nothing, nothing_because: stands for the results where nothing was found, without and with
            the reason that the server gave.
    """

    text_search: Annotated[str, needs()]
    image_search: Annotated[str, needs()]
    results: Annotated[str, needs("hits")]
    hit: Annotated[str, needs("body", may=("rank", "title"))]
    image_hit: Annotated[str, needs("image", may=("rank", "title"))]
    nothing: Annotated[str, needs()]
    nothing_because: Annotated[str, needs("reason")]


@dataclass(frozen=True, slots=True)
class SearchTool:
    """Search text passages or images.

    Attributes:
        searcher: client of the search server.
        texts: what is said to the policy.
        escape: makes what was found harmless.
        settings: how many results are shown, and how much of each.
        image_side_px: images are squashed to this square.
    """

    searcher: Searcher
    texts: SearchTexts
    escape: Escaper
    settings: SearchSettings = field(default_factory=SearchSettings)
    image_side_px: int = 256
    name: str = "search"

    def describe(self) -> ToolDescription:
        """Tell of the two functions, and of the tags around results."""
        query = {"query": "string"}
        functions = (
            ToolFunction(SearchKind.TEXT.value, self.texts.text_search, query),
            ToolFunction(SearchKind.IMAGE.value, self.texts.image_search, query),
        )
        return ToolDescription(functions, tags_in(self.texts.results), "Search")

    def accepts(self, action: Action) -> bool:
        """Accept a search of either kind."""
        return isinstance(action, Search)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Search and lay out the hits.

        Raises:
            InfraError: the service failed after its retries.
        """
        assert isinstance(action, Search)
        with_images = action.tool is SearchKind.IMAGE
        top_k = self.settings.top_k_images if with_images else self.settings.top_k_text
        try:
            found = await self.searcher.search(action.query, _SERVER_KIND[action.tool], top_k)
        except ToolError as error:
            # Caught here and not in the runner: the two kinds are counted apart, and refusals must
            # count where successes do.
            refusal = self.escape(str(error))
            return text_observation(refusal, action.tool.value, Outcome.REJECTED)
        hits = [hit for hit in found.hits if hit.image is not None or not with_images]
        shown: list[Part] = []
        for rank, hit in enumerate(hits, 1):
            shown += self._lay_out(rank, hit, with_image=with_images, browsed=found.browsed)
        reason = self._one_line(found.note) if found.note else ""
        if not hits:
            shown.append(Text(self._nothing(reason)))
        nothing = f"nothing found: {reason}" if reason else "nothing found"
        summary = " | ".join(self._one_line(hit.title) for hit in hits) if hits else nothing
        return Observation(
            Message("user", fill(self.texts.results, hits=joined(shown))),
            action.tool.value,
            Outcome.OK if hits else Outcome.EMPTY,
            summary,
            cached=found.cached,
        )

    def _nothing(self, reason: str) -> str:
        if reason:
            return fill_text(self.texts.nothing_because, reason=reason)
        return fill_text(self.texts.nothing)

    def _lay_out(
        self, rank: int, hit: SearchHit, *, with_image: bool, browsed: bool
    ) -> tuple[Part, ...]:
        title = self._one_line(hit.title)
        if with_image:
            assert hit.image is not None
            size = (self.image_side_px, self.image_side_px)
            image = hit.image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            shown = ImageRef(image, hit.source, title)
            return fill(self.texts.image_hit, rank=str(rank), title=title, image=shown)
        limit = self.settings.page_chars if browsed else self.settings.body_chars
        body = self._one_line(hit.text, limit)
        return fill(self.texts.hit, rank=str(rank), title=title, body=body)

    def _one_line(self, text: str, max_chars: int | None = None) -> str:
        """Make foreign text one harmless line of at most `max_chars` characters, by default
        `body_chars`.
        """
        line = " ".join(self.escape(text).split())
        limit = self.settings.body_chars if max_chars is None else max_chars
        return line if len(line) <= limit else line[: limit - 1] + "…"
