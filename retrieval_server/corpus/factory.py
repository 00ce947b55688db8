"""From settings to a source of local corpora: indexes are opened, or made at the start."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from retrieval_server.corpus.collection import load_corpus, sha256_of
from retrieval_server.corpus.index import (
    LocalIndex,
    build_folder,
    build_in_memory,
    open_faiss_index,
    open_folder,
)
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.source import LocalSource
from retrieval_server.corpus.vectors import IndexType
from retrieval_server.encoder import Encoder, QueryVectorCache
from retrieval_server.options import ServerSettings
from retrieval_server.progress import StartProgress
from retrieval_server.schemas import CollectionKind
from seg_common.errors import UsageError

_logger = logging.getLogger(__name__)


def open_corpora(
    settings: ServerSettings, encoder: Encoder | None, progress: StartProgress
) -> LocalSource | None:
    """Open the corpora that the settings name; None where they name none.

    Args:
        settings: paths, retriever and limits.
        encoder: needed where the retriever uses vectors.
        progress: told of embedding and indexing.

    Raises:
        UsageError: a corpus or an index is missing, broken, or of another encoder or retriever.
    """
    retriever = Retriever(settings.retriever)
    vectors = QueryVectorCache(encoder) if encoder and retriever.uses_vectors else None
    opener = _IndexOpener(vectors, retriever, settings.index_cache, progress)
    indexes: dict[CollectionKind, LocalIndex] = {}
    if settings.text is not None:
        indexes[CollectionKind.TEXT] = opener.open(
            CollectionKind.TEXT, settings.text, settings.text_index
        )
    if settings.images is not None:
        indexes[CollectionKind.IMAGE] = opener.open(
            CollectionKind.IMAGE, settings.images, settings.images_index
        )
    if not indexes:
        return None
    return LocalSource(indexes, vectors, retriever, max_waiting=settings.max_waiting)


def describe(local: LocalSource) -> list[str]:
    """Say how many entries there are and how they are searched."""
    sizes = ((CollectionKind.TEXT, "passages"), (CollectionKind.IMAGE, "images"))
    how = str(local.retriever)
    if local.encoder_name != local.retriever:
        how += f", encoder {local.encoder_name}"
    return [*(f"{local.size(kind)} {noun}" for kind, noun in sizes if kind in local.kinds), how]


@dataclass(frozen=True, slots=True)
class _IndexOpener:
    """What all corpora of a server have in common."""

    vectors: QueryVectorCache | None
    retriever: Retriever
    cache: Path | None
    progress: StartProgress

    def open(self, kind: CollectionKind, corpus: Path, index: Path | None) -> LocalIndex:
        if index is not None and index.is_dir():
            return open_folder(index, kind, corpus, self.vectors, self.retriever)
        if index is not None:
            if self.vectors is None or self.retriever.uses_words:
                raise UsageError(
                    f"{index}: a FAISS file holds vectors alone; use --retriever dense, or build a "
                    "folder: seg-research index build"
                )
            return open_faiss_index(index, load_corpus(kind, corpus), self.vectors)
        if self.cache is None:
            return build_in_memory(
                load_corpus(kind, corpus), self.vectors, self.retriever, self.progress
            )
        return self._cached(kind, corpus, self.cache)

    def _cached(self, kind: CollectionKind, corpus: Path, cache: Path) -> LocalIndex:
        encoder = None if self.vectors is None else self.vectors.encoder
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", encoder.name if encoder else "words")
        folder = cache / f"{kind}-{sha256_of(corpus)[:16]}-{name}-{self.retriever}"
        if (folder / "manifest.json").is_file():
            try:
                return open_folder(folder, kind, corpus, self.vectors, self.retriever)
            except UsageError as error:
                _logger.warning("%s; making it again", error)
        collection = load_corpus(kind, corpus)
        build_folder(folder, collection, encoder, self.retriever, IndexType.FLAT, self.progress)
        return open_folder(folder, kind, corpus, self.vectors, self.retriever)
