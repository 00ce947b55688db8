"""From settings to an app: corpora opened or indexed, the encoder shared by all that need it,
routes put together.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from retrieval_server.app import create_app
from retrieval_server.cache import MemoryCache
from retrieval_server.corpus import load_corpus, sha256_of
from retrieval_server.corpus_source import LocalSource
from retrieval_server.encoder import Encoder, QueryMemory, load_encoder
from retrieval_server.index import (
    LocalIndex,
    Progress,
    build_folder,
    build_in_memory,
    open_alien,
    open_folder,
)
from retrieval_server.options import ServerSettings
from retrieval_server.ranking import Retriever
from retrieval_server.schemas import CollectionKind
from retrieval_server.service import Route, Service
from retrieval_server.vectors import IndexType, set_threads
from seg_common.errors import UsageError

_REMEMBERED_BYTES = 32 << 20
"""For answers from local corpora, which cost milliseconds to find again."""
_logger = logging.getLogger(__name__)


class Composed(NamedTuple):
    """An app and one line on what it serves."""

    app: FastAPI
    summary: str


def compose(settings: ServerSettings, tell: Progress) -> Composed:
    """Load everything that the settings name. What has no local corpus is searched on the web, if a
    provider is named.

    Raises:
        UsageError: there is nothing to serve, or a corpus, index, model, key or package is missing
            or broken.
    """
    if not (settings.text or settings.images or settings.web):
        raise UsageError(
            "there is nothing to serve; name a corpus (--text CORPUS.jsonl, --images CORPUS.jsonl) or a web --provider"
        )
    for path in (settings.text, settings.images, settings.text_index, settings.images_index):
        if path is not None and not path.exists():
            raise UsageError(f"{path}: no such file")
    encoder = None
    if _needs_encoder(settings):
        encoder = load_encoder(settings.encoder, num_threads=settings.num_threads)
        set_threads(settings.num_threads)
    local = _open_local(settings, encoder, tell)
    routes: dict[CollectionKind, Route] = {}
    counters: list[Callable[[], Mapping[str, int]]] = []
    closers: list[Callable[[], Awaitable[None]]] = []
    parts = []
    if settings.web is not None:
        from retrieval_server.web.factory import open_web

        web = open_web(settings.web, encoder)
        routes |= web.routes
        counters.append(web.counts)
        closers.append(web.close)
        parts.append(web.summary)
    if local is not None:
        routes |= {
            kind: Route(local, MemoryCache(max_bytes=_REMEMBERED_BYTES)) for kind in local.kinds
        }
        parts = [*_local_summary(local), *parts]

    async def close() -> None:
        for closer in closers:
            await closer()

    service = Service(routes, default_top_k=settings.top_k, on_stop=close)
    app = create_app(
        service,
        local=local,
        default_top_k=settings.top_k,
        token=settings.token(),
        counters=counters,
    )
    return Composed(app, " · ".join(parts))


def _needs_encoder(settings: ServerSettings) -> bool:
    has_corpus = settings.text is not None or settings.images is not None
    return (has_corpus and Retriever(settings.retriever).uses_vectors) or bool(
        settings.web and settings.web.browse
    )


def _open_local(
    settings: ServerSettings, encoder: Encoder | None, tell: Progress
) -> LocalSource | None:
    retriever = Retriever(settings.retriever)
    memory = QueryMemory(encoder) if encoder and retriever.uses_vectors else None
    indexes: dict[CollectionKind, LocalIndex] = {}
    for kind, corpus, index in (
        (CollectionKind.TEXT, settings.text, settings.text_index),
        (CollectionKind.IMAGE, settings.images, settings.images_index),
    ):
        if corpus is not None:
            indexes[kind] = _index(
                kind, corpus, index, memory, retriever, settings.index_cache, tell
            )
    return (
        LocalSource(indexes, memory, retriever, max_waiting=settings.max_waiting)
        if indexes
        else None
    )


def _local_summary(local: LocalSource) -> list[str]:
    sizes = ((CollectionKind.TEXT, "passages"), (CollectionKind.IMAGE, "images"))
    how = (
        str(local.retriever)
        if local.encoder_name == local.retriever
        else f"{local.retriever}, encoder {local.encoder_name}"
    )
    return [*(f"{local.size(kind)} {noun}" for kind, noun in sizes if kind in local.kinds), how]


def _index(
    kind: CollectionKind,
    corpus: Path,
    index: Path | None,
    memory: QueryMemory | None,
    retriever: Retriever,
    cache: Path | None,
    tell: Progress,
) -> LocalIndex:
    if index is not None and index.is_dir():
        return open_folder(index, kind, corpus, memory, retriever)
    if index is not None:
        if memory is None or retriever.uses_words:
            raise UsageError(
                f"{index}: a FAISS file holds vectors alone; use --retriever dense, or build a folder: seg-research index build"
            )
        return open_alien(index, load_corpus(kind, corpus), memory)
    if cache is None:
        return build_in_memory(load_corpus(kind, corpus), memory, retriever, tell)
    return _cached_index(kind, corpus, memory, retriever, cache, tell)


def _cached_index(
    kind: CollectionKind,
    corpus: Path,
    memory: QueryMemory | None,
    retriever: Retriever,
    cache: Path,
    tell: Progress,
) -> LocalIndex:
    encoder = None if memory is None else memory.encoder
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", encoder.name if encoder else "words")
    folder = cache / f"{kind}-{sha256_of(corpus)[:16]}-{name}-{retriever}"
    if (folder / "manifest.json").is_file():
        try:
            return open_folder(folder, kind, corpus, memory, retriever)
        except UsageError as error:
            _logger.warning("%s; making it again", error)
    build_folder(folder, load_corpus(kind, corpus), encoder, retriever, IndexType.FLAT, tell)
    return open_folder(folder, kind, corpus, memory, retriever)
