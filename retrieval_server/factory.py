"""From settings to an app: local corpora, the web, and the encoder that both may need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from fastapi import FastAPI

from retrieval_server.app import create_app
from retrieval_server.cache import MemoryCache
from retrieval_server.corpus.factory import describe, open_corpora
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.vectors import set_threads
from retrieval_server.encoder import load_encoder
from retrieval_server.options import ServerSettings
from retrieval_server.progress import StartProgress
from retrieval_server.schemas import CollectionKind
from retrieval_server.service import Route, Service
from seg_common.errors import UsageError

_CORPUS_CACHE_BYTES = 32 << 20
"""For answers from local corpora, which cost milliseconds to find again."""


class BuiltApp(NamedTuple):
    """An app and one line on what it serves."""

    app: FastAPI
    summary: str


def build_app(settings: ServerSettings, progress: StartProgress) -> BuiltApp:
    """Load everything that the settings name. What has no local corpus is searched on the web, if a
    provider is named.

    Raises:
        UsageError: there is nothing to serve, or a corpus, index, model, key or package is missing
            or broken.
    """
    _check_named(settings)
    encoder = None
    if _needs_encoder(settings):
        encoder = load_encoder(settings.encoder, num_threads=settings.num_threads)
        set_threads(settings.num_threads)
    local = open_corpora(settings, encoder, progress)
    routes: dict[CollectionKind, Route] = {}
    counters: list[Callable[[], Mapping[str, int]]] = []
    on_stop: Callable[[], Awaitable[None]] | None = None
    parts: list[str] = []
    if settings.web is not None:
        # The web's packages are no concern of a server without it.
        from retrieval_server.web.factory import open_web

        web = open_web(settings.web, encoder)
        routes |= web.routes
        counters.append(web.counts)
        on_stop = web.close
        parts.append(web.summary)
    if local is not None:
        for kind in local.kinds:
            routes[kind] = Route(local, MemoryCache(max_bytes=_CORPUS_CACHE_BYTES))
        parts = [*describe(local), *parts]
    app = create_app(
        Service(routes, default_top_k=settings.top_k, on_stop=on_stop),
        local=local,
        default_top_k=settings.top_k,
        token=settings.token(),
        counters=counters,
    )
    return BuiltApp(app, " · ".join(parts))


def _check_named(settings: ServerSettings) -> None:
    if not (settings.text or settings.images or settings.web):
        raise UsageError(
            "there is nothing to serve; name a corpus (--text CORPUS.jsonl, --images CORPUS.jsonl) "
            "or a web --provider"
        )
    for path in (settings.text, settings.images, settings.text_index, settings.images_index):
        if path is not None and not path.exists():
            raise UsageError(f"{path}: no such file")


def _needs_encoder(settings: ServerSettings) -> bool:
    has_corpus = settings.text is not None or settings.images is not None
    embeds_corpus = has_corpus and Retriever(settings.retriever).uses_vectors
    return embeds_corpus or bool(settings.web and settings.web.browse)
