"""The HTTP face of the search server. Replies never hold a path of this machine, an echo of the request, or a traceback."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_server.batching import Batcher, Lookup, Matches, OverloadedError
from retrieval_server.encoder import Encoder
from retrieval_server.index import DenseIndex, Match
from retrieval_server.pictures import data_url
from retrieval_server.schemas import (
    MAX_QUERY_CHARS,
    CollectionKind,
    CollectionSizes,
    Document,
    Health,
    Hit,
    Problem,
    RetrieveRequest,
    RetrieveResponse,
    ScoredDocument,
    SearchRequest,
    SearchResponse,
)
from seg_research import __version__

MAX_BODY_BYTES = 1 << 20
_RETRY_AFTER_S = 1
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (413, 422, 429, 500)}
_PLAIN_WORDS = {"string_too_short": "must not be empty", "string_too_long": f"must have at most {MAX_QUERY_CHARS} characters"}
_logger = logging.getLogger(__name__)


def create_app(indexes: Mapping[CollectionKind, DenseIndex], encoder: Encoder, *, default_top_k: int = 3) -> FastAPI:
    """Serve indexes that were built with this very encoder."""

    def answer(lookups: Sequence[Lookup]) -> list[Matches]:
        queries = list(dict.fromkeys(query for lookup in lookups for query in lookup.queries))
        vectors = dict(zip(queries, encoder.encode(queries), strict=True))
        return [[indexes[lookup.kind].search(vectors[query], lookup.top_k) for query in lookup.queries] for lookup in lookups]

    batcher = Batcher(answer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    app = FastAPI(title="seg_research search", version=__version__, lifespan=lifespan)
    app.add_middleware(_BoundedBodies)
    _answer_problems(app)

    def known(kind: CollectionKind) -> DenseIndex:
        if kind not in indexes:
            raise HTTPException(422, f"this server has no {kind} collection; it has: {', '.join(indexes)}")
        return indexes[kind]

    @app.post("/search", responses=_PROBLEMS)
    async def search(request: SearchRequest) -> SearchResponse:
        """Look one query up."""
        started = time.perf_counter()
        index = known(request.kind)
        (matches,) = await batcher.submit(Lookup(request.kind, (request.query,), request.top_k or default_top_k))
        hits = await asyncio.to_thread(_hits, index, matches) if request.kind is CollectionKind.IMAGE else _hits(index, matches)
        return SearchResponse(hits=hits, took_ms=(time.perf_counter() - started) * 1e3)

    @app.post("/retrieve", responses=_PROBLEMS)
    async def retrieve(request: RetrieveRequest) -> RetrieveResponse:
        """Look several queries up in the text collection, as Search-R1 clients ask."""
        known(CollectionKind.TEXT)
        matches = await batcher.submit(Lookup(CollectionKind.TEXT, tuple(request.queries), request.topk or default_top_k))
        scored = [[ScoredDocument(document=_document(match), score=match.score) for match in found] for found in matches]
        return RetrieveResponse(result=scored if request.return_scores else [[hit.document for hit in found] for found in scored])

    @app.get("/healthz")
    async def healthz() -> Health:
        """Tell what is served."""
        sizes = {kind: len(index.collection.entries) for kind, index in indexes.items()}
        collections = CollectionSizes(text=sizes.get(CollectionKind.TEXT, 0), images=sizes.get(CollectionKind.IMAGE, 0))
        return Health(status="ok", collections=collections, encoder=encoder.name, version=__version__)

    return app


def _hits(index: DenseIndex, matches: Sequence[Match]) -> list[Hit]:
    return [
        Hit(
            id=str(entry.id),
            title=entry.title,
            text=entry.text,
            score=score,
            image=None if entry.picture is None else data_url(entry.picture),
            source=index.collection.source_of(entry),
        )
        for entry, score in matches
    ]


def _document(match: Match) -> Document:
    return Document(id=match.entry.id, contents=match.entry.contents)


def _answer_problems(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(part for part in first["loc"] if isinstance(part, str) and part != "body") or "body"
        return JSONResponse({"detail": f"{where}: {_PLAIN_WORDS.get(first['type'], first['msg'])}"}, 422)

    @app.exception_handler(OverloadedError)
    async def on_overload(_: Request, __: OverloadedError) -> JSONResponse:
        detail = "too many searches wait already; try again in a moment"
        return JSONResponse({"detail": detail}, 429, headers={"Retry-After": str(_RETRY_AFTER_S)})

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        # Boundary: the client learns that it was not its fault; what it was stands in our log.
        _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"detail": "internal error of the search server; its log says more"}, 500)


class _BoundedBodies:
    """Refuse request bodies above `MAX_BODY_BYTES`, by their stated length or, without one, as soon as they exceed it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = HTTPException(413, f"the request body is larger than {MAX_BODY_BYTES} bytes")
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > MAX_BODY_BYTES:
            await JSONResponse({"detail": refusal.detail}, refusal.status_code)(scope, receive, send)
            return
        num_bytes = 0

        async def bounded_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY_BYTES:
                raise refusal
            return message

        await self._app(scope, bounded_receive, send)
