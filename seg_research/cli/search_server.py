"""The search server a command needs: one that runs already, or one started for the command and
stopped after it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_server.server import running_server
from seg_common.errors import UsageError

_OF_THE_SERVER = (
    "cache_mode",
    "cache_file",
    "max_calls_per_run",
    "max_usd_per_run",
    "max_calls_per_day",
    "max_usd_per_day",
)


@contextlib.contextmanager
def search_server(
    url: str | None, text: str | Path | None, images: str | Path | None, web: Sequence[str] = ()
) -> Generator[str]:
    """Give the address of a search server: `url` as it is, or that of a server started on the
    corpora and, with options for it, the web.

    Raises:
        UsageError: nothing was given, or the server cannot start.
        InfraError: the running one does not answer.
    """
    if url:
        asyncio.run(_check_answers(url))
        yield url
    elif text or web:
        with running_server(
            Path(text) if text else None, Path(images) if images else None, options=web
        ) as started:
            yield started
    else:
        raise UsageError(
            "a search server is needed: name a running one (--search-url), or a corpus to start one"
            " on (--text CORPUS.jsonl)"
        )


def web_options(search: Mapping[str, Any], *, run_name: str) -> list[str]:
    """Turn the web part of `seg.search` into options of the server; none without a provider."""
    if not search["provider"]:
        return []
    options = ["--provider", str(search["provider"]), "--run-name", run_name]
    for name in _OF_THE_SERVER:
        if search[name] is not None:
            options += [f"--{name.replace('_', '-')}", str(search[name])]
    return [*options, "--browse"] if search["browse"] else options


async def _check_answers(url: str) -> None:
    """See that the server answers now, and not in the middle of the work."""
    from seg_research.search.client import SearchClient

    async with SearchClient(url) as client:
        await client.health()
