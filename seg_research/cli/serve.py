"""Run the search tool server: passages and images of local corpora and the web, over HTTP.

It listens on this machine alone unless clients must show a token. POST /search, /search/batch and
/retrieve (as Search-R1 clients ask), GET /healthz, /readyz and /metrics; http://HOST:PORT/docs
describes them. Stop it with Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse

from retrieval_server.options import add_arguments as add_server_arguments
from retrieval_server.options import settings_from
from retrieval_server.server import run as run_server
from seg_research.cli.progress import entry_progress

EXAMPLES = """examples:
  seg-research serve --text outputs/mini/local_KB/text_corpus.jsonl \\
      --images outputs/mini/local_KB/image_corpus.jsonl
  seg-research serve --text CORPUS.jsonl --port 0            a free port, which the first line names
  seg-research serve --text CORPUS.jsonl --index-cache ~/.cache/seg_research    embed a corpus once
  seg-research serve --text CORPUS.jsonl --text-index corpus.index --retriever hybrid
  seg-research serve --text CORPUS.jsonl --host 0.0.0.0 --token-env SEARCH_TOKEN --log json
  seg-research serve --provider serper --cache-file searches.sqlite --max-usd-per-day 5
  curl -s localhost:8100/search -H 'content-type: application/json' \\
      -d '{"query": "who directed Barbie", "kind": "text", "top_k": 2}'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the server."""
    add_server_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    run_server(settings_from(options), progress=entry_progress)
    return 0
