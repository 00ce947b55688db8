"""Run the search tool server: passages and pictures of local corpora, found by meaning, over HTTP.

It listens on this machine alone. POST /search and /retrieve (as Search-R1 clients ask), GET /healthz; http://HOST:PORT/docs describes them.
Stop it with Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

EXAMPLES = """examples:
  seg-research serve --text outputs/mini/local_KB/text_corpus.jsonl --images outputs/mini/local_KB/image_corpus.jsonl
  seg-research serve --text CORPUS.jsonl --port 0            a free port; the first line tells which
  seg-research serve --text CORPUS.jsonl --cache ~/.cache/seg_research    embed a large corpus once
  curl -s localhost:8100/search -H 'content-type: application/json' -d '{"query": "who directed Barbie", "kind": "text", "top_k": 2}'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the server."""
    from retrieval_server import server

    server.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from retrieval_server import server

    server.run(server.settings_from(options), progress_of=_progress)
    return 0


def _progress(what: str, total: int) -> Callable[[int], None]:
    from tqdm import tqdm

    bar = tqdm(total=total, desc=what, unit="text", file=sys.stderr, disable=None)

    def advance(num_done: int) -> None:
        bar.update(num_done)
        if bar.n >= total:
            bar.close()

    return advance
