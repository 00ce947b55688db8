"""What goes over the wire, in both directions. pydantic alone, so that a client can validate replies without the server's dependencies."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_QUERY_CHARS = 500
MAX_TOP_K = 100
MAX_QUERIES = 256
"""Queries in one `/retrieve` request."""


class CollectionKind(StrEnum):
    """Which collection a request looks in."""

    TEXT = "text"
    IMAGE = "image"


Query = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K, strict=True)]
Score = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class SearchRequest(_Body):
    """Body of `POST /search`; without `top_k` the server's own default holds."""

    query: Query
    kind: CollectionKind = CollectionKind.TEXT
    top_k: TopK | None = None


class Hit(_Reply):
    """One result, best first.

    Attributes:
        score: cosine of query and entry.
        image: JPEG as a data URL; None for text and for a picture that cannot be read.
        source: corpus file name and entry id.
    """

    id: str
    title: str
    text: str
    score: Score
    image: str | None = None
    source: str


class SearchResponse(_Reply):
    """Reply of `POST /search`."""

    hits: Annotated[list[Hit], Field(max_length=MAX_TOP_K)]
    took_ms: Seconds


class RetrieveRequest(BaseModel):
    """Body of `POST /retrieve`, as Search-R1 clients send it; fields that they add beyond these are ignored."""

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


class Problem(_Reply):
    """Body of every reply that is not 2xx."""

    detail: str
