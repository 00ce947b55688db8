"""Look things up through the search server and lay the results out for the policy. Everything that
comes back is hostile text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from seg_common.errors import ToolError
from seg_research.data.sample import Sample
from seg_research.episode.action import Action
from seg_research.episode.escaping import escape_untrusted
from seg_research.episode.transcript import ImageRef, Message, Observation, Outcome, Text
from seg_research.recipes.seg_research.actions import Search, SearchKind
from seg_research.search.client import SearchHit, SearchOutcome
from seg_research.tools.base import text_observation

_SERVER_KIND: dict[SearchKind, Literal["text", "image"]] = {
    SearchKind.TEXT: "text",
    SearchKind.IMAGE: "image",
}


class Searcher(Protocol):
    """What this tool needs of a search client."""

    async def search(self, query: str, kind: Literal["text", "image"], top_k: int) -> SearchOutcome:
        """Look a query up.

        Raises:
            ToolError: the query is unusable.
            InfraError: the service failed after its retries.
        """
        ...


@dataclass(frozen=True, slots=True)
class SearchTool:
    """Search text passages or pictures.

    Attributes:
        searcher: client of the search server.
        top_k_text, top_k_images: number of results shown (published: 2 and 1).
        body_chars: titles and passages are cut to this length, with an ellipsis (published: 320).
        page_chars: the same for parts of pages that were read.
        image_side_px: pictures are squashed to this square (published: 256).
    """

    searcher: Searcher
    top_k_text: int = 2
    top_k_images: int = 1
    body_chars: int = 320
    page_chars: int = 1_000
    image_side_px: int = 256
    name: str = "search"

    def accepts(self, action: Action) -> bool:
        """Accept a search of either kind."""
        return isinstance(action, Search)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Search and lay out the hits between <information> tags.

        Raises:
            InfraError: the service failed after its retries.
        """
        assert isinstance(action, Search)
        with_pictures = action.kind is SearchKind.IMAGE
        try:
            found = await self.searcher.search(
                action.query,
                _SERVER_KIND[action.kind],
                self.top_k_images if with_pictures else self.top_k_text,
            )
        except ToolError as error:
            # Caught here and not in the runner: the two kinds are counted apart, and refusals must
            # count where successes do.
            return text_observation(str(error), action.kind, Outcome.REJECTED)
        hits = [hit for hit in found.hits if hit.image is not None or not with_pictures]
        parts: list[Text | ImageRef] = [Text("<information>\n")]
        for rank, hit in enumerate(hits, 1):
            parts += self._lay_out(
                rank,
                hit,
                with_pictures=with_pictures,
                max_chars=self.page_chars if found.browsed else self.body_chars,
            )
        if not hits:
            parts.append(
                Text(
                    f"Nothing was found: {self._one_line(found.note)}.\n"
                    if found.note
                    else "Nothing was found.\n"
                )
            )
        parts.append(Text("</information>"))
        nothing = f"nothing found: {self._one_line(found.note)}" if found.note else "nothing found"
        summary = " | ".join(self._one_line(hit.title) for hit in hits) if hits else nothing
        return Observation(
            Message("user", _joined(parts)),
            action.kind,
            Outcome.OK if hits else Outcome.EMPTY,
            summary,
            cached=found.cached,
        )

    def _lay_out(
        self, rank: int, hit: SearchHit, *, with_pictures: bool, max_chars: int
    ) -> list[Text | ImageRef]:
        title = self._one_line(hit.title)
        if with_pictures:
            assert hit.image is not None
            picture = hit.image.convert("RGB").resize(
                (self.image_side_px, self.image_side_px), Image.Resampling.LANCZOS
            )
            return [
                Text(f"{rank}. (Title: {title}) "),
                ImageRef(picture, hit.source, title),
                Text("\n"),
            ]
        return [Text(f"{rank}. (Title: {title}) {self._one_line(hit.text, max_chars)}\n")]

    def _one_line(self, text: str, max_chars: int | None = None) -> str:
        """Make foreign text one harmless line of at most `max_chars` characters, by default
        `body_chars`.
        """
        line = " ".join(escape_untrusted(text).split())
        limit = self.body_chars if max_chars is None else max_chars
        return line if len(line) <= limit else line[: limit - 1] + "…"


def _joined(parts: list[Text | ImageRef]) -> tuple[Text | ImageRef, ...]:
    """Merge neighbouring texts, so that a chat template sees as few parts as possible."""
    merged: list[Text | ImageRef] = []
    for part in parts:
        if isinstance(part, Text) and merged and isinstance(merged[-1], Text):
            merged[-1] = Text(merged[-1].text + part.text)
        else:
            merged.append(part)
    return tuple(merged)
