"""What to serve and where: the options of the search server and their checks. Nothing heavy is
imported with this module.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_server import DEFAULT_ENCODER
from retrieval_server.web import options as web_options
from seg_common.arguments import at_least, chosen
from seg_common.errors import UsageError

DEFAULT_PORT = 8100
RETRIEVERS = ("dense", "bm25", "hybrid")
LOG_FORMATS = ("text", "json")
_MIN_TOKEN_CHARS = 16


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What to serve and where.

    Attributes:
        text_index, images_index: folders that `seg-research index build` made, or flat FAISS files
            of other programs.
        port: 0 picks a free one.
        encoder: folder or name of a sentence-transformers model.
        top_k: number of hits where a request names none.
        num_threads: threads for embedding and ranking.
        index_cache: folder where indexes are kept between starts.
        max_waiting: look-ups that may wait; further ones are answered 429.
        token_env: environment variable with the token that clients must show; None asks for none.
        log: write a line for each request, in this format.
        web: what is searched there, for kinds without a local corpus.
    """

    text: Path | None = None
    images: Path | None = None
    text_index: Path | None = None
    images_index: Path | None = None
    retriever: str = "dense"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    encoder: str = DEFAULT_ENCODER
    top_k: int = 3
    num_threads: int = 1
    index_cache: Path | None = None
    max_waiting: int = 512
    token_env: str | None = None
    log: str | None = None
    web: web_options.WebSettings | None = None

    def token(self) -> str | None:
        """Read the token from the environment.

        Raises:
            UsageError: it is not there, or easily guessed.
        """
        if self.token_env is None:
            return None
        token = os.environ.get(self.token_env, "")
        if len(token) < _MIN_TOKEN_CHARS:
            state = (
                f"has {len(token)} characters, expected at least {_MIN_TOKEN_CHARS}"
                if token
                else "is not set"
            )
            make = (
                "export "
                + self.token_env
                + '=$(python -c "import secrets; print(secrets.token_urlsafe())")'
            )
            raise UsageError(f"--token-env: {self.token_env} {state}; make a token: {make}")
        return token


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option per field of `ServerSettings`."""
    default = ServerSettings()
    _add_corpora(parser.add_argument_group("local corpora").add_argument, default)
    serving = parser.add_argument_group("serving").add_argument
    serving("--host", default=default.host, help="address to listen on")
    serving("--port", type=at_least(0, 65535), default=default.port, help="0 picks a free one")
    serving(
        "--top-k",
        type=int,
        default=default.top_k,
        metavar="K",
        help="hits where a request names no number",
    )
    serving(
        "--max-waiting",
        type=at_least(1),
        default=default.max_waiting,
        metavar="N",
        help="searches that may wait",
    )
    serving(
        "--token-env",
        metavar="NAME",
        help="clients must show the bearer token that this environment variable holds",
    )
    serving("--log", choices=LOG_FORMATS, help="write a line for each request to stderr")
    web_options.add_arguments(parser)


def _add_corpora(local: Callable[..., object], default: ServerSettings) -> None:
    corpus: dict[str, Any] = {"type": Path, "metavar": "CORPUS.jsonl"}
    local("--text", **corpus, help='passages: {"id", "contents": "title\\ntext"} a line')
    local("--images", **corpus, help='images: {"id", "name", "filename", "image_path"?} a line')
    local(
        "--text-index",
        type=Path,
        metavar="PATH",
        help="index of --text: a folder of `seg-research index build`, or a flat FAISS file",
    )
    local("--images-index", type=Path, metavar="PATH", help="index of --images, likewise")
    local(
        "--index-cache",
        type=Path,
        metavar="DIR",
        help="keep indexes made at start here, for the next start",
    )
    local(
        "--retriever",
        choices=RETRIEVERS,
        default=default.retriever,
        help="by meaning, by words, or both",
    )
    local(
        "--encoder",
        default=default.encoder,
        metavar="PATH_OR_NAME",
        help="sentence-transformers model",
    )
    local(
        "--threads",
        dest="num_threads",
        type=at_least(1),
        default=default.num_threads,
        metavar="N",
        help="CPU threads for embedding",
    )


def settings_from(options: argparse.Namespace) -> ServerSettings:
    """Build settings from parsed options.

    Raises:
        UsageError: a number is out of range, an index has no corpus, or the address is a public one
            and there is no token.
    """
    # pydantic, which the schemas are made with, has no place in `--help`.
    from retrieval_server.schemas import MAX_TOP_K

    if not 1 <= options.top_k <= MAX_TOP_K:
        raise UsageError(f"--top-k {options.top_k}: expected 1..{MAX_TOP_K}")
    for kind in ("text", "images"):
        if getattr(options, f"{kind}_index") and not getattr(options, kind):
            raise UsageError(
                f"--{kind}-index: the index holds no texts; name its corpus with --{kind}"
            )
    if not options.token_env and not is_loopback(options.host):
        raise UsageError(
            f"--host {options.host}: other machines could reach this address and nothing would "
            "keep them out; use 127.0.0.1, or have clients show a token: --token-env NAME"
        )
    settings = ServerSettings(
        **chosen(ServerSettings, options), web=web_options.settings_from(options)
    )
    settings.token()
    return settings


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
