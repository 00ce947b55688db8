"""What goes over the wire, in both directions. pydantic alone, so that a client can validate
replies without the server's dependencies.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_QUERY_CHARS = 500
MAX_TOP_K = 100
MAX_QUERIES = 256
"""Queries in one `/retrieve` request."""
MAX_BATCH_SEARCHES = 64
MAX_BATCH_HITS = 512
"""Over all searches of one `/search/batch` request; images among them make replies of megabytes.
"""
MAX_DEADLINE_S = 600.0
DEADLINE_HEADER = "X-Deadline-S"
"""Names the seconds within which a client wants its answer; the body may name fewer."""
JPEG_DATA_URL = "data:image/jpeg;base64,"
"""How an image of a reply begins."""


class CollectionKind(StrEnum):
    """Which collection a request looks in."""

    TEXT = "text"
    IMAGE = "image"


Query = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS)
]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K, strict=True)]
Score = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Deadline = Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class SearchRequest(_Body):
    """Body of `POST /search`; without `top_k` the server's own default holds.

    Attributes:
        browse: read the pages of web results instead of their snippets; local corpora ignore it.
        deadline_s: answer within this time or not at all.
    """

    query: Query
    kind: CollectionKind = CollectionKind.TEXT
    top_k: TopK | None = None
    browse: bool = False
    deadline_s: Deadline | None = None


class Hit(_Reply):
    """One result, best first.

    Attributes:
        score: higher is better, on the scale of its source: the cosine of query and entry for dense
            retrieval.
        image: JPEG as a data URL; None for text and for an image that cannot be read.
        source: web address, or corpus file name and entry id.
    """

    id: str
    title: str
    text: str
    score: Score
    image: str | None = None
    source: str


class SearchResponse(_Reply):
    """Reply of `POST /search`.

    Attributes:
        provider: name of the source that answered.
        cached: whether it had been asked before.
        note: why there are fewer hits than there could be, e.g. an exhausted budget.
    """

    hits: Annotated[list[Hit], Field(max_length=MAX_TOP_K)]
    took_ms: Seconds
    provider: str = ""
    cached: bool = False
    note: str | None = None


class SearchBatchRequest(_Body):
    """Body of `POST /search/batch`."""

    searches: Annotated[list[SearchRequest], Field(min_length=1, max_length=MAX_BATCH_SEARCHES)]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if sum(search.top_k or 1 for search in self.searches) > MAX_BATCH_HITS:
            raise ValueError(f"top_k of all searches together must be at most {MAX_BATCH_HITS}")
        return self


class SearchBatchItem(_Reply):
    """What became of one search of a batch: `status` as `POST /search` would have replied, and
    either a response or the reason for none.
    """

    status: int
    response: SearchResponse | None = None
    detail: str | None = None


class SearchBatchResponse(_Reply):
    """Reply of `POST /search/batch`: one item a search, in order."""

    results: list[SearchBatchItem]


class RetrieveRequest(BaseModel):
    """Body of `POST /retrieve`, as Search-R1 clients send it; fields that they add beyond these are
    ignored.
    """

    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES)]
    topk: TopK | None = None
    return_scores: bool = False


class Document(_Reply):
    """A passage as its corpus holds it: `contents` = title, newline, text."""

    id: str | int
    contents: str


class ScoredDocument(_Reply):
    """A passage and its cosine with the query."""

    document: Document
    score: Score


class RetrieveResponse(_Reply):
    """Reply of `POST /retrieve`: one list per query."""

    result: list[list[ScoredDocument]] | list[list[Document]]


class CollectionSizes(_Reply):
    """Entries per collection; 0 where the server has none."""

    text: int = 0
    images: int = 0


class Health(_Reply):
    """Reply of `GET /healthz`."""

    status: str
    collections: CollectionSizes
    encoder: str
    version: str


class Readiness(_Reply):
    """Reply of `GET /readyz`: 200 where searches are taken, 503 where they are not for now."""

    status: str


class Problem(_Reply):
    """Body of every reply that is not 2xx."""

    detail: str
