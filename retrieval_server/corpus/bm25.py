"""Retrieval by shared words: BM25 (Robertson & Zaragoza 2009) through bm25s, scored ahead of time
into one sparse, memory-mapped matrix.
"""

# bm25s and PyStemmer state no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_server.corpus.vectors import SCORE_DECIMALS, Ranked
from seg_common.errors import UsageError

_TOLD_ENTRIES = 512


class Bm25Ranker:
    """Ranks entries by the words that they share with a query; entries that share none are not
    found.
    """

    def __init__(self, index: Any) -> None:
        """Wrap a built or loaded `bm25s.BM25`; see `build_bm25` and `open_bm25`."""
        self.index = index
        self._words_of = _words_of()

    def rank(self, queries: Sequence[str], top_k: int) -> list[list[Ranked]]:
        """Return for each query the best entries, best first."""
        return [self._rank(query, top_k) for query in queries]

    def _rank(self, query: str, top_k: int) -> list[Ranked]:
        known = self.index.get_tokens_ids(self._words_of(query))
        if not known:
            return []
        scores_N: np.ndarray = np.round(
            self.index.get_scores_from_ids(known).astype(np.float64), SCORE_DECIMALS
        )
        top_k = min(top_k, len(scores_N))
        cut = np.partition(scores_N, -top_k)[-top_k]
        rows_C = np.flatnonzero(scores_N >= max(cut, 10**-SCORE_DECIMALS))
        order = np.argsort(-scores_N[rows_C], kind="stable")[:top_k]
        return [Ranked(int(row), float(scores_N[row])) for row in rows_C[order]]


def build_bm25(texts: Iterable[str], progress: Callable[[int], None] | None = None) -> Bm25Ranker:
    """Index texts in memory; words are told apart by their English stems, other languages by the
    words themselves.
    """
    import bm25s

    words_of = _words_of()
    # A dictionary of our own rather than lists of words: ids take a tenth of the memory.
    vocabulary: dict[str, int] = {}
    ids: list[np.ndarray] = []
    for number, text in enumerate(texts, 1):
        words = words_of(text)
        ids.append(
            np.fromiter(
                (vocabulary.setdefault(word, len(vocabulary)) for word in words),
                np.int32,
                len(words),
            )
        )
        if progress and number % _TOLD_ENTRIES == 0:
            progress(_TOLD_ENTRIES)
    if progress:
        progress(len(ids) % _TOLD_ENTRIES)
    if not vocabulary:
        raise UsageError(
            "the corpus holds no words that BM25 could look for; use --retriever dense"
        )
    index: Any = bm25s.BM25()
    index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
    return Bm25Ranker(index)


def save_bm25(ranker: Bm25Ranker, folder: Path) -> None:
    """Write an index to a folder, which appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        whole = Path(temporary) / "index"
        ranker.index.save(str(whole), show_progress=False)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        whole.rename(folder)


def open_bm25(folder: Path) -> Bm25Ranker:
    """Map an index that `save_bm25` wrote.

    Raises:
        UsageError: it cannot be read.
    """
    import bm25s

    try:
        load: Any = bm25s.BM25.load
        return Bm25Ranker(load(str(folder), mmap=True, show_progress=False))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{folder}: cannot read this BM25 index ({error}); build it again with `seg-research"
            " index build`"
        ) from None


def _words_of() -> Callable[[str], list[str]]:
    """Return a function from a text to its stemmed words, without those that say nothing."""
    import bm25s
    import Stemmer

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for its own debug messages
    stemmer: Any = Stemmer.Stemmer("english")
    tokenize: Any = bm25s.tokenize

    def words(text: str) -> list[str]:
        return tokenize(
            [text], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )[0]

    return words
