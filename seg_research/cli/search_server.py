"""The search server a command needs: one that runs already, or one started for the command and stopped after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from seg_research.core.errors import UsageError


@contextlib.contextmanager
def search_server(url: str | None, text: str | Path | None, images: str | Path | None) -> Iterator[str]:
    """Give the address of a search server: `url` as it is, or that of a server started on the corpora.

    Raises:
        UsageError: neither was given, or the server cannot start.
        InfraError: the running one does not answer.
    """
    from retrieval_server.server import running_server

    if url:
        asyncio.run(_greet(url))
        yield url
    elif text:
        with running_server(Path(text), Path(images) if images else None) as started:
            yield started
    else:
        raise UsageError("a search server is needed: name a running one (--search-url), or a corpus to start one on (--text CORPUS.jsonl)")


async def _greet(url: str) -> None:
    """Ask for a sign of life now rather than in the middle of the work."""
    from seg_research.search.client import SearchClient

    async with SearchClient(url) as client:
        await client.health()
