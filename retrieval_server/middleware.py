"""What every request passes before a route sees it: a name, the token, a bound on its body; and
afterwards the metrics and the log.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_server.logs import REQUESTS
from retrieval_server.metrics import Metrics

MAX_BODY_BYTES = 1 << 20
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered without a token, for probes; they tell nothing that is worth one."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_logger = logging.getLogger(REQUESTS)


class RequestMiddleware:
    """ASGI middleware around the whole server."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, token: str | None, known_paths: Collection[str]
    ) -> None:
        """Guard an app; without a token everybody may ask. Paths that are not known are counted
        together.
        """
        self._app, self._metrics, self._known_paths = app, metrics, known_paths
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started = Headers(scope=scope), time.perf_counter()
        stated_id = headers.get("x-request-id", "")
        request_id = stated_id if _REQUEST_ID.fullmatch(stated_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._guarded(scope, headers, receive, send_named)
        finally:
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in self._known_paths else "other"
            self._metrics.request(path, status, seconds)
            if _logger.isEnabledFor(logging.INFO):
                fields = {
                    "request_id": request_id,
                    "status": status,
                    "took_ms": round(seconds * 1e3, 2),
                }
                _logger.info("%s %s", scope["method"], path, extra={"fields": fields})

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if not self._may_ask(scope["path"], headers):
            refusal = JSONResponse(
                {"detail": "a bearer token is needed"}, 401, headers={"WWW-Authenticate": "Bearer"}
            )
            await refusal(scope, receive, send)
            return
        too_large = HTTPException(413, f"the request body is larger than {MAX_BODY_BYTES} bytes")
        stated = headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > MAX_BODY_BYTES:
            await JSONResponse({"detail": too_large.detail}, too_large.status_code)(
                scope, receive, send
            )
            return
        num_bytes = 0

        async def bounded_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY_BYTES:
                raise too_large
            return message

        await self._app(scope, bounded_receive, send)

    def _may_ask(self, path: str, headers: Headers) -> bool:
        if self._expected is None or path in OPEN_PATHS:
            return True
        return hmac.compare_digest(
            headers.get("authorization", "").encode("utf-8", "replace"), self._expected
        )
