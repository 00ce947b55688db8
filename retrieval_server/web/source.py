"""A web provider as a source: budget, turn, call, retries; for images also their download."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
)

from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import (
    BudgetExhaustedError,
    RefusedError,
    SearchResult,
    SourceError,
    UnavailableError,
)
from retrieval_server.web.budget_ledger import Ledger
from retrieval_server.web.limiter import Limiter
from retrieval_server.web.provider import CallError, Provider, WebHit

SPARE_IMAGES = 5
"""Asked for beyond the number wanted: many images on the web can no longer be had."""
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 8.0
_REFUSAL_HOLDS_S = 60.0

GetImage = Callable[[str], Awaitable[bytes | None]]
"""Downloads an address safely and returns a small JPEG, or None."""


class WebSource:
    """Asks one provider with care. Belongs to one event loop."""

    def __init__(
        self,
        provider: Provider,
        *,
        limiter: Limiter,
        ledger: Ledger,
        get_image: GetImage,
        attempts: int = 4,
        timeout_s: float = 45.0,
    ) -> None:
        """Wrap a provider.

        Args:
            provider: asked one call at a time.
            limiter: shared by all clients.
            ledger: entered before each call.
            get_image: for image search.
            attempts: calls for one search at most.
            timeout_s: for one search, all calls, pauses and downloads together.
        """
        self._provider, self._limiter, self._ledger, self._get_image = (
            provider,
            limiter,
            ledger,
            get_image,
        )
        self._attempts, self._timeout_s = attempts, timeout_s
        self._refusal: SourceError | None = None
        self._refusal_ends = 0.0
        self.counts: Counter[str] = Counter()
        """Of calls since the start: upstream_calls, upstream_failures, upstream_retries, images,
        images_missing.
        """

    @property
    def name(self) -> str:
        """The provider's."""
        return self._provider.name

    @property
    def kinds(self) -> frozenset[CollectionKind]:
        """The provider's."""
        return self._provider.kinds

    async def find(self, query: str, kind: CollectionKind, top_k: int) -> list[SearchResult]:
        """Search; for images, go down the list until `top_k` could be downloaded.

        Raises:
            SourceError: as told by the provider, the budget or the limiter.
        """
        spare = SPARE_IMAGES if kind is CollectionKind.IMAGE else 0
        try:
            async with asyncio.timeout(self._timeout_s):
                hits = _distinct(
                    await self._hits(query, kind, min(top_k + spare, self._provider.max_results))
                )
                if kind is CollectionKind.TEXT:
                    return [_found(hit) for hit in hits[:top_k]]
                return await self._with_images(hits, top_k)
        except TimeoutError:
            raise UnavailableError(f"{self.name}: no answer within {self._timeout_s:g} s") from None

    async def _hits(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts) | stop_before_delay(self._timeout_s),
            wait=_pause_s,
            retry=retry_if_exception(_is_retryable),
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, query, kind, num)
        except CallError as failure:
            raise failure.error from None

    async def _attempt(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        now = asyncio.get_running_loop().time
        if self._refusal is not None and now() < self._refusal_ends:
            raise self._refusal
        try:
            return await self._call(query, kind, num)
        except CallError as failure:
            error = failure.error
            if isinstance(error, RefusedError | BudgetExhaustedError):
                self._refusal, self._refusal_ends = error, now() + _REFUSAL_HOLDS_S
            if error.retry_after_s:
                self._limiter.pause(error.retry_after_s)
            raise

    def _count_retry(self, _: RetryCallState) -> None:
        self.counts["upstream_retries"] += 1

    async def _call(self, query: str, kind: CollectionKind, num: int) -> list[WebHit]:
        async with self._limiter.turn():
            receipt = await self._ledger.charge()
            self.counts["upstream_calls"] += 1
            try:
                return await self._provider.ask(query, kind, num)
            except CallError as failure:
                self.counts["upstream_failures"] += 1
                if not failure.billed:
                    await self._ledger.refund(receipt)
                raise

    async def _with_images(self, hits: list[WebHit], top_k: int) -> list[SearchResult]:
        """Download in order, as many at once as are still wanted. Without any image the bare
        titles are returned.
        """
        complete: list[SearchResult] = []
        remaining = [hit for hit in hits if hit.image_urls]
        while remaining and len(complete) < top_k:
            wanted = top_k - len(complete)
            batch, remaining = remaining[:wanted], remaining[wanted:]
            images = await asyncio.gather(*(self._first_image(hit) for hit in batch))
            complete += [
                _found(hit, image)
                for hit, image in zip(batch, images, strict=True)
                if image is not None
            ]
        return complete or [_found(hit) for hit in hits[:top_k]]

    async def _first_image(self, hit: WebHit) -> bytes | None:
        for address in hit.image_urls:
            image = await self._get_image(address)
            if image is not None:
                self.counts["images"] += 1
                return image
        self.counts["images_missing"] += 1
        return None


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, CallError) and error.retryable


def _pause_s(state: RetryCallState) -> float:
    """Wait as long as the provider asked for, or longer after each failure."""
    failure = state.outcome and state.outcome.exception()
    if isinstance(failure, CallError) and failure.error.retry_after_s:
        return failure.error.retry_after_s
    backoff_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2 ** (state.attempt_number - 1))
    # Spread, so that clients that failed together do not come back together.
    return random.uniform(0.5, 1.0) * backoff_s


def _distinct(hits: list[WebHit]) -> list[WebHit]:
    """Keep the first of results with one address and image, and only those that say anything."""
    first: dict[tuple[str, tuple[str, ...]], WebHit] = {}
    for hit in hits:
        if hit.title or hit.text or hit.image_urls:
            first.setdefault((hit.url, hit.image_urls[:1]), hit)
    return list(first.values())


def _found(hit: WebHit, image: bytes | None = None) -> SearchResult:
    return SearchResult(
        id=hit.url, title=hit.title, text=hit.text, source=hit.url, score=hit.score, image=image
    )
