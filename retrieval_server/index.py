"""Exact cosine search over the embeddings of one collection.

Scores are rounded, so that equal entries tie in spite of the last bits of a matrix product, and ties keep the order of the corpus.

Arrays: N entries, D dimensions, C candidates.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrieval_server.collections import Collection, Entry
from retrieval_server.encoder import Encoder
from seg_research.core.files import atomic_path

_SCORE_DECIMALS = 5
_logger = logging.getLogger(__name__)


class Match(NamedTuple):
    """An entry and its cosine with the query."""

    entry: Entry
    score: float


@dataclass(frozen=True, slots=True)
class DenseIndex:
    """A collection and the unit vectors of its entries, embeddings_ND."""

    collection: Collection
    embeddings_ND: np.ndarray

    def search(self, query_D: np.ndarray, top_k: int) -> list[Match]:
        """Return the entries nearest to a unit vector, best first."""
        # One query at a time: a product with several queries at once would round differently with their number.
        scores_N = np.round(self.embeddings_ND @ query_D, _SCORE_DECIMALS)
        top_k = min(top_k, len(scores_N))
        threshold = np.partition(scores_N, -top_k)[-top_k]
        candidates_C = np.flatnonzero(scores_N >= threshold)
        order = np.argsort(-scores_N[candidates_C], kind="stable")[:top_k]
        return [Match(self.collection.entries[i], round(float(scores_N[i]), _SCORE_DECIMALS)) for i in candidates_C[order]]


def build_index(
    collection: Collection, encoder: Encoder, *, cache: Path | None = None, progress: Callable[[int], None] | None = None
) -> DenseIndex:
    """Embed a collection, or read its embeddings from the cache folder, where they are kept under a hash of contents and encoder."""
    texts = [entry.contents for entry in collection.entries]
    if cache is None:
        return DenseIndex(collection, encoder.encode(texts, progress))
    path = cache / f"{collection.kind}-{_key(texts, encoder)}.npy"
    embeddings_ND = _read(path, len(texts))
    if embeddings_ND is None:
        embeddings_ND = encoder.encode(texts, progress)
        with atomic_path(path) as temporary:
            np.save(temporary, embeddings_ND)
    elif progress:
        progress(len(texts))
    return DenseIndex(collection, embeddings_ND)


def _key(texts: Sequence[str], encoder: Encoder) -> str:
    """Hash the texts, and of the encoder what it does to a probe: a name could stand for other weights tomorrow."""
    digest = hashlib.sha256(encoder.encode(["which model made these vectors?"]).tobytes())
    for text in texts:
        raw = text.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:32]


def _read(path: Path, num_entries: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        embeddings_ND = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        _logger.warning("%s: cannot read these embeddings (%s); making them again", path, error)
        return None
    if embeddings_ND.ndim != 2 or len(embeddings_ND) != num_entries or embeddings_ND.dtype != np.float32:
        found = f"{embeddings_ND.dtype} {embeddings_ND.shape}"
        _logger.warning("%s: holds %s instead of %d vectors; making them again", path, found, num_entries)
        return None
    return embeddings_ND
