"""What an index will take, told before it is built or loaded: memory, disk, time, and the searches
a second to expect.

The encoder and a product of vectors are timed here and now; the rest is arithmetic, with constants
measured by `benchmarks/retrieval.py`.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.vectors import (
    HNSW_LINKS,
    PQ_DIMENSIONS_PER_BYTE,
    FlatIndex,
    IndexType,
    num_lists,
)
from retrieval_server.encoder import Encoder, Role

_MIB = 1 << 20
_SERVER_BYTES = 40 * _MIB
"""FastAPI, FAISS and caches of answers and query vectors, beyond an encoder that has worked."""
_BARE_BYTES = 120 * _MIB
_HNSW_LINK_BYTES = 8 * HNSW_LINKS + 20
_HNSW_DOUBLING_S = 8e-5
"""HNSW takes so much longer with each doubling of the corpus."""
_IVFPQ_S = 2.5e-3
_BM25_BYTES_PER_CORPUS_BYTE, _BM25_ENTRY_S = 0.8, 2e-9
_SAMPLE_ROWS, _SAMPLE_QUERIES = 16_384, 32
_QUESTIONS = [
    f"in which year did the team that won the cup number {i} move to its new stadium"
    for i in range(64)
]


@dataclass(frozen=True, slots=True)
class CorpusShape:
    """What is known of a corpus without reading it."""

    num_entries: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Expectations; memory in bytes by what takes it.

    Attributes:
        embedded_per_s, ranked_per_s: searches a second that the encoder alone and ranking alone
            would answer; infinite where there is none.
        build_s: for embedding the corpus; 0 without vectors.
    """

    memory: dict[str, int]
    disk_bytes: int
    embedded_per_s: float
    ranked_per_s: float
    build_s: float

    @property
    def memory_bytes(self) -> int:
        """Of the whole process."""
        return sum(self.memory.values())

    @property
    def searches_per_s(self) -> float:
        """Of queries not asked before, by one worker thread that embeds and then ranks."""
        return 1 / (1 / self.embedded_per_s + 1 / self.ranked_per_s)


def make_plan(
    shape: CorpusShape,
    retriever: Retriever,
    kind: IndexType,
    encoder: Encoder | None,
    passages: Sequence[str],
) -> Plan:
    """Estimate; `passages` are some of the corpus, and the encoder has been loaded where the
    retriever uses one.
    """
    num_entries = shape.num_entries
    memory = {"process": _BARE_BYTES, "places of entries": 8 * num_entries}
    embedded_per_s, rank_s, build_s, disk_bytes = float("inf"), 0.0, 0.0, 8 * num_entries
    if encoder is not None and retriever.uses_vectors:
        num_dimensions = encoder.encode(["how long is a vector?"]).shape[1]
        embedded_per_s = len(_QUESTIONS) / _seconds(lambda: encoder.encode(_QUESTIONS))
        build_s = (
            num_entries * _seconds(lambda: encoder.encode(passages, Role.PASSAGE)) / len(passages)
        )
        memory |= {
            "process": _peak_bytes() + _SERVER_BYTES,
            "vectors": _vector_bytes(kind, num_entries, num_dimensions),
        }
        disk_bytes += 4 * num_entries * num_dimensions + (
            0 if kind is IndexType.FLAT else memory["vectors"]
        )
        rank_s += _dense_s(kind, num_entries, num_dimensions)
    if retriever.uses_words:
        memory["words"] = round(_BM25_BYTES_PER_CORPUS_BYTE * shape.num_bytes)
        disk_bytes += memory["words"]
        rank_s += _BM25_ENTRY_S * num_entries + 2e-4
    return Plan(memory, disk_bytes, embedded_per_s, 1 / rank_s, build_s)


def _vector_bytes(kind: IndexType, num_entries: int, num_dimensions: int) -> int:
    whole = 4 * num_entries * num_dimensions
    match kind:
        case IndexType.FLAT:
            return whole
        case IndexType.HNSW:
            return whole + _HNSW_LINK_BYTES * num_entries
        case IndexType.IVFPQ:
            return (num_dimensions // PQ_DIMENSIONS_PER_BYTE + 8) * num_entries + 4 * num_lists(
                num_entries
            ) * num_dimensions


def _dense_s(kind: IndexType, num_entries: int, num_dimensions: int) -> float:
    if kind is IndexType.IVFPQ:
        return _IVFPQ_S
    if kind is IndexType.HNSW:
        return _HNSW_DOUBLING_S * float(np.log2(max(2, num_entries)))
    rows_ND = np.random.default_rng(0).standard_normal(
        (min(num_entries, _SAMPLE_ROWS), num_dimensions), np.float32
    )
    index = FlatIndex(rows_ND)
    taken_s = _seconds(lambda: index.search(rows_ND[:_SAMPLE_QUERIES], 3)) / len(
        rows_ND[:_SAMPLE_QUERIES]
    )
    return taken_s * max(1.0, num_entries / len(rows_ND))


def _seconds(work: Callable[[], object]) -> float:
    """Time the fastest of two runs after a first one."""
    work()
    taken: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
