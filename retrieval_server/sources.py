"""What can be searched: a local corpus or the web, behind one protocol, and the ways in which a
search can fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from retrieval_server.schemas import CollectionKind


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One result.

    Attributes:
        id: names the entry within its source.
        source: web address, or `<corpus file>#<id>`.
        score: higher is better; its scale is the source's own.
        image: JPEG, its longer side at most `jpeg.MAX_SIDE_PX`; None for text and for an image
            that could not be had.
    """

    id: str
    title: str
    text: str
    source: str
    score: float
    image: bytes | None = None


class SourceError(Exception):
    """A source gave no answer. The text may be shown to clients: it holds no key, path or
    traceback.

    Attributes:
        status: HTTP status of the reply.
        retry_after_s: wait before asking again; 0 where nothing is known about it.
    """

    status: ClassVar[int] = 503
    retry_after_s: float = 0.0


class UnavailableError(SourceError):
    """It may answer later: overload, a time-out, a broken reply."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class RefusedError(SourceError):
    """It will not answer until the operator changes something, such as its key."""

    status = 424


class BudgetExhaustedError(SourceError):
    """No more calls may be paid for. An answer rather than a failure: the service turns it into no
    hits and a note.
    """

    status = 200


class QueryError(SourceError):
    """It cannot do anything with this query; another one may succeed."""

    status = 422


class NotRecordedError(SourceError):
    """A recording is replayed that holds no answer to this query."""

    status = 422


class DeadlineError(SourceError):
    """The client's deadline passed; the search continues for whoever asks next."""

    status = 504


class Source(Protocol):
    """Answers queries about one or both kinds of collection."""

    @property
    def name(self) -> str:
        """What logs, metrics and replies call it."""
        ...

    @property
    def kinds(self) -> frozenset[CollectionKind]:
        """What it can be asked for."""
        ...

    async def find(self, query: str, kind: CollectionKind, top_k: int) -> list[SearchResult]:
        """Return the best results, best first.

        Raises:
            SourceError: of a subclass that tells what to do about it.
        """
        ...
