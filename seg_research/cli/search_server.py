"""The search server a command needs: one that runs already, or one started for the command and stopped after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from seg_research.core.errors import UsageError


@contextlib.contextmanager
def search_server(url: str | None, text: str | Path | None, images: str | Path | None) -> Iterator[str]:
    """Give the address of a search server: `url` as it is, or that of a server started on the corpora.

    Raises:
        UsageError: neither was given, or the server cannot start.
    """
    from retrieval_server.server import running_server

    if url:
        yield url
    elif text:
        with running_server(Path(text), Path(images) if images else None) as started:
            yield started
    else:
        raise UsageError("a search server is needed: name a running one (--search-url), or a corpus to start one on (--text CORPUS.jsonl)")
