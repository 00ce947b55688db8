"""How a corpus is searched: by meaning (dense), by words (BM25), or by both with their ranks fused
(hybrid).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from retrieval_server.corpus.bm25 import Bm25Ranker
from retrieval_server.corpus.vectors import SCORE_DECIMALS, Ranked, VectorIndex
from retrieval_server.encoder import QueryVectorCache

_FUSION_OFFSET = 60
"""Reciprocal rank fusion, Cormack, Clarke & Büttcher 2009: their k."""
_FUSED_DEPTH = 100


class Retriever(StrEnum):
    """What a corpus is searched by."""

    DENSE = "dense"
    BM25 = "bm25"
    HYBRID = "hybrid"

    @property
    def uses_vectors(self) -> bool:
        """Whether an encoder is needed."""
        return self is not Retriever.BM25

    @property
    def uses_words(self) -> bool:
        """Whether a BM25 index is needed."""
        return self is not Retriever.DENSE


class Ranker(Protocol):
    """Ranks the rows of a corpus for queries. What a query gets does not depend on what is asked
    with it.
    """

    def rank(self, queries: Sequence[str], top_k: int) -> list[list[Ranked]]:
        """Return for each query its best rows, best first."""
        ...


class DenseRanker:
    """Ranks by the cosine of query and entry."""

    def __init__(self, vectors: QueryVectorCache, index: VectorIndex) -> None:
        """Search an index that was made with the encoder of `vectors`."""
        self._vectors, self.index = vectors, index

    def rank(self, queries: Sequence[str], top_k: int) -> list[list[Ranked]]:
        """Return for each query its best rows, best first."""
        return self.index.search(self._vectors.embed(queries), top_k)


class HybridRanker:
    """Fuses two rankings: a row earns 1 / (60 + rank) from each of them."""

    def __init__(self, dense: DenseRanker, words: Bm25Ranker) -> None:
        """Fuse rankings of the same corpus."""
        self._rankers: tuple[Ranker, ...] = (dense, words)

    def rank(self, queries: Sequence[str], top_k: int) -> list[list[Ranked]]:
        """Return for each query its best rows, best first."""
        depth = max(top_k, _FUSED_DEPTH)
        rankings = [ranker.rank(queries, depth) for ranker in self._rankers]
        return [fused(of_query)[:top_k] for of_query in zip(*rankings, strict=True)]


def fused(rankings: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """Fuse rankings by reciprocal ranks; ties keep the order of the corpus."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (row, _) in enumerate(ranking, 1):
            scores[row] = scores.get(row, 0.0) + 1 / (_FUSION_OFFSET + rank)
    return sorted(
        (Ranked(row, round(score, SCORE_DECIMALS)) for row, score in scores.items()),
        key=lambda hit: (-hit.score, hit.row),
    )
