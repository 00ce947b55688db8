"""The HTTP face of the search server. Replies never hold a path of this machine, an echo of the
request, or a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, TypeAdapter, ValidationError

from retrieval_server.corpus.source import LocalSource
from retrieval_server.metrics import CONTENT_TYPE, Metrics
from retrieval_server.middleware import RequestMiddleware
from retrieval_server.schemas import (
    DEADLINE_HEADER,
    MAX_QUERY_CHARS,
    CollectionKind,
    CollectionSizes,
    Deadline,
    Document,
    Health,
    Problem,
    Readiness,
    RetrieveRequest,
    RetrieveResponse,
    ScoredDocument,
    SearchBatchItem,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
)
from retrieval_server.service import Service
from retrieval_server.sources import DeadlineError, SourceError
from seg_common import __version__

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 404, 413, 422, 424, 429, 500, 503, 504)
}
_PLAIN_WORDS = {
    "string_too_short": "must not be empty",
    "string_too_long": f"must have at most {MAX_QUERY_CHARS} characters",
}
_DEADLINE: TypeAdapter[float] = TypeAdapter(Deadline)
_DEADLINE_WORDS = "answer within so many seconds or not at all"
_DeadlineHeader = Annotated[
    Deadline | None, Header(alias=DEADLINE_HEADER, description=_DEADLINE_WORDS)
]
_SEARCH_INTERFACE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SearchRequest"}}},
    },
    "parameters": [
        {
            "name": DEADLINE_HEADER,
            "in": "header",
            "required": False,
            "description": _DEADLINE_WORDS,
            "schema": _DEADLINE.json_schema(),
        }
    ],
}
_logger = logging.getLogger(__name__)


def create_app(
    service: Service,
    *,
    local: LocalSource | None = None,
    default_top_k: int = 3,
    token: str | None = None,
    counters: Sequence[Callable[[], Mapping[str, int]]] = (),
) -> FastAPI:
    """Serve a service.

    Args:
        service: answers; stopped with the app.
        local: the source of its local corpora, started and stopped with the app.
        default_top_k: number of hits where a `/retrieve` request names none.
        token: what clients must show.
        counters: what else `/metrics` tells of events.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        if local is not None:
            local.batcher.on_batch = metrics.batch
            await local.start()
        try:
            yield
        finally:
            await service.stop()
            if local is not None:
                await local.stop()

    description = "Text and image search: local corpora and the web behind one interface."
    app = FastAPI(
        title="seg_research search", version=__version__, description=description, lifespan=lifespan
    )
    _add_search_routes(app, service, local, default_top_k)
    _add_probes(app, local, metrics)
    _answer_problems(app)
    known_paths = {path for route in app.routes if (path := route.__dict__.get("path"))}
    app.add_middleware(RequestMiddleware, metrics=metrics, token=token, known_paths=known_paths)
    metrics.watch(
        [lambda: service.counts, *counters],
        lambda: {"waiting": local.batcher.num_waiting} if local else {},
    )
    return app


def _add_search_routes(
    app: FastAPI, service: Service, local: LocalSource | None, default_top_k: int
) -> None:
    def check(kind: CollectionKind) -> None:
        if kind not in service.kinds:
            raise HTTPException(
                422,
                f"this server has no {kind} collection; it has: {', '.join(sorted(service.kinds))}",
            )

    @app.post(
        "/search",
        responses=_PROBLEMS,
        response_model=SearchResponse,
        openapi_extra=_SEARCH_INTERFACE,
    )
    async def search(raw: Request) -> Response:
        """Look one query up."""
        # Read here and not by FastAPI, which takes longer over it than a remembered answer takes
        # altogether.
        request, deadline_s = await _read_search(raw)
        check(request.kind)
        return _json(await service.search(_with_shorter_deadline(request, deadline_s)))

    @app.post("/search/batch", responses=_PROBLEMS, response_model=SearchBatchResponse)
    async def search_batch(
        batch: SearchBatchRequest, deadline_s: _DeadlineHeader = None
    ) -> Response:
        """Look several queries up; each is answered or refused on its own."""
        for request in batch.searches:
            check(request.kind)
        items = await asyncio.gather(
            *(
                _item(service, _with_shorter_deadline(request, deadline_s))
                for request in batch.searches
            )
        )
        return _json(SearchBatchResponse(results=items))

    @app.post("/retrieve", responses=_PROBLEMS, response_model=RetrieveResponse)
    async def retrieve(request: RetrieveRequest, deadline_s: _DeadlineHeader = None) -> Response:
        """Look several queries up in the text collection, as Search-R1 clients ask."""
        check(CollectionKind.TEXT)
        try:
            async with asyncio.timeout(deadline_s):
                scored = await _retrieved(
                    service, local, request.queries, request.topk or default_top_k
                )
        except TimeoutError:
            raise DeadlineError(f"no answer within the deadline of {deadline_s:g} s") from None
        plain = [[hit.document for hit in hits] for hits in scored]
        return _json(RetrieveResponse(result=scored if request.return_scores else plain))


def _add_probes(app: FastAPI, local: LocalSource | None, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def healthz() -> Health:
        """Tell that the process runs, and what it serves."""
        sizes = CollectionSizes(
            text=local.size(CollectionKind.TEXT) if local else 0,
            images=local.size(CollectionKind.IMAGE) if local else 0,
        )
        return Health(
            status="ok",
            collections=sizes,
            encoder=local.encoder_name if local else "none",
            version=__version__,
        )

    @app.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """Tell whether searches are taken at this moment."""
        is_ready = local is None or local.is_ready
        response.status_code = 200 if is_ready else 503
        return Readiness(status="ready" if is_ready else "busy")

    @app.get("/metrics", responses={401: {"model": Problem}}, response_class=Response)
    async def show_metrics() -> Response:
        """Tell the numbers of this process, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)


async def _read_search(raw: Request) -> tuple[SearchRequest, float | None]:
    """Read what FastAPI would: body and deadline.

    Raises:
        RequestValidationError: one of them is not as described.
    """
    where = "body"
    try:
        content_type = raw.headers.get("content-type", "")
        # Anything else a web page could send here without asking the browser's user.
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise RequestValidationError(
                [
                    {
                        "type": "content_type",
                        "loc": (where,),
                        "msg": "Content-Type must be application/json",
                    }
                ]
            )
        request = SearchRequest.model_validate_json(await raw.body())
        where, stated = DEADLINE_HEADER, raw.headers.get(DEADLINE_HEADER)
        return request, None if stated is None else _DEADLINE.validate_python(stated)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(
            [{**each, "loc": (where, *each["loc"])} for each in found]
        ) from None


def _with_shorter_deadline(request: SearchRequest, deadline_s: float | None) -> SearchRequest:
    """Honour the shorter of the two deadlines."""
    if deadline_s is None or deadline_s >= (request.deadline_s or math.inf):
        return request
    return request.model_copy(update={"deadline_s": deadline_s})


async def _item(service: Service, request: SearchRequest) -> SearchBatchItem:
    try:
        return SearchBatchItem(status=200, response=await service.search(request))
    except SourceError as error:
        return SearchBatchItem(status=error.status, detail=str(error))


async def _retrieved(
    service: Service, local: LocalSource | None, queries: list[str], top_k: int
) -> list[list[ScoredDocument]]:
    if local is not None and CollectionKind.TEXT in local.kinds:
        found = await local.passages(queries, top_k)
        return [
            [
                ScoredDocument(document=Document(id=e.id, contents=e.contents), score=score)
                for e, score in hits
            ]
            for hits in found
        ]
    replies = await asyncio.gather(
        *(service.search(SearchRequest(query=query, top_k=top_k)) for query in queries)
    )
    return [
        [
            ScoredDocument(
                document=Document(id=hit.source, contents=f"{hit.title}\n{hit.text}"),
                score=hit.score,
            )
            for hit in reply.hits
        ]
        for reply in replies
    ]


def _json(reply: BaseModel) -> Response:
    # Made by pydantic at once: FastAPI would check again what is checked already.
    return Response(reply.model_dump_json(), media_type="application/json")


def _answer_problems(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = (
            ".".join(
                str(part)
                for part in first["loc"]
                if part not in ("body", "header") or len(first["loc"]) == 1
            )
            or "body"
        )
        return JSONResponse(
            {"detail": f"{where}: {_PLAIN_WORDS.get(first['type'], first['msg'])}"}, 422
        )

    @app.exception_handler(SourceError)
    async def on_no_answer(_: Request, error: SourceError) -> JSONResponse:
        headers = (
            {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s else None
        )
        return JSONResponse({"detail": str(error)}, error.status, headers=headers)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        # Boundary: the client learns that it was not its fault; what it was stands in our log.
        request_id = request.state.request_id
        fields = {"request_id": request_id}
        _logger.error(
            "%s %s failed",
            request.method,
            request.url.path,
            exc_info=error,
            extra={"fields": fields},
        )
        detail = "internal error of the search server; its log says more"
        return JSONResponse({"detail": detail}, 500, headers={"X-Request-Id": request_id})
