"""Nearest vectors by inner product: exact (flat), or approximate for large corpora (HNSW, IVF-PQ),
through FAISS.

A query gets the same rows and scores whatever it is searched with: FAISS only proposes candidates,
whose scores are then computed one by one and rounded; ties keep the order of the corpus. Where the
cut falls among near-ties, more candidates are asked for.

Arrays: N entries, D dimensions, Q queries, C candidates.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from seg_common.errors import UsageError

if TYPE_CHECKING:
    import faiss

SCORE_DECIMALS = 5
HNSW_LINKS = 32
PQ_DIMENSIONS_PER_BYTE = 8
_HNSW_BREADTH_BUILD, HNSW_BREADTH_SEARCH = 100, 128
_IVF_PROBES = 32
_ADDED_ROWS = 2048
_TRAINING_ROWS_PER_LIST = 39
_MIN_IVFPQ_ENTRIES = 256 * _TRAINING_ROWS_PER_LIST
"""As many as FAISS wants for the 256 code words of each part."""
_SPARE_CANDIDATES = 16
_REFINED_CANDIDATES = 128
_UNSURE = 2e-5
"""Rounding to `SCORE_DECIMALS` and the error of a product in float32, relative to vectors of length
1.
"""


class IndexType(StrEnum):
    """How vectors are searched."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVFPQ = "ivfpq"


class Ranked(NamedTuple):
    """A row of the corpus and how well it answers."""

    row: int
    score: float


class VectorIndex(Protocol):
    """Finds the nearest vectors."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def search(self, queries_QD: np.ndarray, top_k: int) -> list[list[Ranked]]:
        """Return for each query its nearest rows, best first."""
        ...


class FlatIndex:
    """Every vector is looked at; `vectors_ND` may be memory-mapped."""

    def __init__(self, vectors_ND: np.ndarray) -> None:
        """Search vectors that are contiguous float32."""
        self.vectors_ND = vectors_ND

    def __len__(self) -> int:
        return len(self.vectors_ND)

    def search(self, queries_QD: np.ndarray, top_k: int) -> list[list[Ranked]]:
        """Return for each query its nearest rows, best first; exact."""
        import faiss

        top_k = min(top_k, len(self))
        num_candidates = min(len(self), top_k + _SPARE_CANDIDATES)
        scores_QC, rows_QC = faiss.knn(
            queries_QD, self.vectors_ND, num_candidates, metric=faiss.METRIC_INNER_PRODUCT
        )
        return [
            self._settle(query_D, scores_C, rows_C, top_k)
            for query_D, scores_C, rows_C in zip(queries_QD, scores_QC, rows_QC, strict=True)
        ]

    def _settle(
        self, query_D: np.ndarray, scores_C: np.ndarray, rows_C: np.ndarray, top_k: int
    ) -> list[Ranked]:
        import faiss

        unsure = _UNSURE * max(1.0, abs(float(scores_C[0])))
        while len(rows_C) < len(self) and scores_C[top_k - 1] - scores_C[-1] <= unsure:
            num_candidates = min(len(self), 4 * len(rows_C))
            (scores_C,), (rows_C,) = faiss.knn(
                query_D[None], self.vectors_ND, num_candidates, metric=faiss.METRIC_INNER_PRODUCT
            )
        return rescored(query_D, self.vectors_ND, rows_C)[:top_k]


class HnswIndex:
    """A graph of neighbours: hundreds of comparisons instead of N. Its scores are exact, its choice
    is not always.
    """

    def __init__(self, index: faiss.IndexHNSWFlat) -> None:
        """Wrap a FAISS index by inner product."""
        self._index: Any = index
        self._index.hnsw.efSearch = HNSW_BREADTH_SEARCH

    def __len__(self) -> int:
        return self._index.ntotal

    def search(self, queries_QD: np.ndarray, top_k: int) -> list[list[Ranked]]:
        """Return for each query rows near it, best first."""
        found: list[list[Ranked]] = []
        for query_D in queries_QD:
            (scores_C,), (rows_C,) = self._index.search(
                query_D[None], min(top_k + _SPARE_CANDIDATES, len(self))
            )
            found.append(_ordered(scores_C[rows_C >= 0], rows_C[rows_C >= 0])[:top_k])
        return found


class RowsOnDisk:
    """Some rows at a time of an `.npy` file, read and not mapped: what is mapped stays in memory
    once it was touched.
    """

    def __init__(self, path: Path) -> None:
        """Open a float32 array of two axes."""
        mapped_ND = np.load(path, mmap_mode="r")
        self.shape, self._offset = mapped_ND.shape, mapped_ND.offset
        self._file = path.open("rb")

    def __getitem__(self, rows_C: np.ndarray) -> np.ndarray:
        num_bytes = 4 * self.shape[1]
        raw = b"".join(
            os.pread(self._file.fileno(), num_bytes, self._offset + int(row) * num_bytes)
            for row in rows_C
        )
        return np.frombuffer(raw, np.float32).reshape(len(rows_C), self.shape[1])


class IvfPqIndex:
    """Compressed vectors in clusters propose candidates; whole vectors, on disk, decide."""

    def __init__(self, index: faiss.IndexIVFPQ, vectors_ND: np.ndarray | RowsOnDisk) -> None:
        """Wrap a FAISS index and the vectors that it was made of."""
        self._index: Any = index
        self._vectors_ND = vectors_ND
        self._index.nprobe = min(_IVF_PROBES, self._index.nlist)

    def __len__(self) -> int:
        return self._index.ntotal

    def search(self, queries_QD: np.ndarray, top_k: int) -> list[list[Ranked]]:
        """Return for each query rows near it, best first."""
        found: list[list[Ranked]] = []
        # several at once would choose their clusters by a product that rounds differently with
        # their number
        for query_D in queries_QD:
            _, (rows_C,) = self._index.search(
                query_D[None], min(len(self), max(_REFINED_CANDIDATES, 4 * top_k))
            )
            found.append(rescored(query_D, self._vectors_ND, rows_C[rows_C >= 0])[:top_k])
        return found


def rescored(
    query_D: np.ndarray, vectors_ND: np.ndarray | RowsOnDisk, rows_C: np.ndarray
) -> list[Ranked]:
    """Order candidates by their exact scores."""
    # A sum along a contiguous axis: each row is added up alike whatever rows are beside it, which a
    # matrix product does not promise.
    products_CD = vectors_ND[rows_C].astype(np.float64) * query_D.astype(np.float64)
    return _ordered(products_CD.sum(axis=1), rows_C)


def _ordered(scores_C: np.ndarray, rows_C: np.ndarray) -> list[Ranked]:
    rounded_C = np.round(scores_C.astype(np.float64), SCORE_DECIMALS) + 0.0  # no negative zeros
    order = np.lexsort((rows_C, -rounded_C))
    return [Ranked(int(rows_C[i]), float(rounded_C[i])) for i in order]


def set_threads(num_threads: int) -> None:
    """Let FAISS use so many threads of this process; it would take all cores."""
    import faiss

    faiss.omp_set_num_threads(num_threads)


def num_lists(num_entries: int) -> int:
    """Choose the number of clusters of an IVF index: about twice the root of N, a power of two."""
    return min(
        1 << round(np.log2(2 * np.sqrt(num_entries))),
        max(1, num_entries // _TRAINING_ROWS_PER_LIST),
    )


def build_faiss(
    kind: IndexType,
    vectors_ND: np.ndarray,
    target: Path,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Build an approximate index over unit vectors and write it to a file.

    Raises:
        UsageError: there are too few vectors, or their dimensions cannot be divided, for this type.
    """
    import faiss

    num_entries, num_dimensions = vectors_ND.shape
    if kind is IndexType.HNSW:
        index: Any = faiss.IndexHNSWFlat(num_dimensions, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _HNSW_BREADTH_BUILD
    else:
        if num_entries < _MIN_IVFPQ_ENTRIES or num_dimensions % PQ_DIMENSIONS_PER_BYTE:
            raise UsageError(
                f"ivfpq needs at least {_MIN_IVFPQ_ENTRIES} entries of a multiple of"
                f" {PQ_DIMENSIONS_PER_BYTE} dimensions, found {num_entries} of {num_dimensions};"
                " use --type flat"
            )
        num_clusters = num_lists(num_entries)
        parts = num_dimensions // PQ_DIMENSIONS_PER_BYTE
        index = faiss.index_factory(
            num_dimensions, f"IVF{num_clusters},PQ{parts}", faiss.METRIC_INNER_PRODUCT
        )
        num_training = max(num_clusters * _TRAINING_ROWS_PER_LIST, _MIN_IVFPQ_ENTRIES)
        chosen = np.sort(np.random.default_rng(0).choice(num_entries, num_training, replace=False))
        index.train(vectors_ND[chosen])
    for start in range(0, num_entries, _ADDED_ROWS):
        rows_ND = np.ascontiguousarray(vectors_ND[start : start + _ADDED_ROWS])
        index.add(rows_ND)
        if progress:
            progress(len(rows_ND))
    try:
        faiss.write_index(index, str(target))
    except RuntimeError as error:  # FAISS tells neither the reason nor the file
        raise UsageError(
            f"{target.parent}: cannot write the index ({str(error)[-120:]}); free some space, then"
            " run again"
        ) from None


def open_faiss(path: Path) -> Any:
    """Map a FAISS file into memory.

    Raises:
        UsageError: it is not one.
    """
    import faiss

    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"{path}: not a FAISS index that can be read ({reason[:200]}); build it again"
        ) from None


def flat_from_faiss(path: Path) -> FlatIndex:
    """Read an index that somebody else made with `IndexFlatIP`, as it is.

    Raises:
        UsageError: it is of another type or metric.
    """
    import faiss

    index = open_faiss(path)
    if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise UsageError(
            f"{path}: is a {type(index).__name__}; expected a flat index by inner product"
            " (IndexFlatIP)"
        )
    return _BorrowedFlat(index)


class _BorrowedFlat(FlatIndex):
    """Vectors that lie inside a FAISS index, which must live as long as they are used."""

    def __init__(self, index: faiss.IndexFlat) -> None:
        import faiss

        super().__init__(
            faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(
                index.ntotal, index.d
            )
        )
        self._owner = index
