import pytest

pytest.importorskip("faiss")

from retrieval_server.corpus.capacity import CorpusShape, make_plan
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.vectors import IndexType

MILLION = CorpusShape(10**6, 600 * 10**6)


def planned(encoder, kind, retriever=Retriever.DENSE, shape=MILLION):
    return make_plan(shape, retriever, kind, encoder, ["a passage"])


def test_flat_vectors_take_their_bytes(encoder):
    plan = planned(encoder, IndexType.FLAT)
    assert plan.memory["vectors"] == 4 * 64 * 10**6
    assert plan.memory_bytes == sum(plan.memory.values())
    assert plan.disk_bytes >= plan.memory["vectors"]


def test_links_cost_memory_and_compression_saves_it(encoder):
    flat, hnsw, ivfpq = (planned(encoder, kind).memory["vectors"] for kind in IndexType)
    assert ivfpq < flat / 8 < flat < hnsw < 3 * flat


def test_a_larger_corpus_is_searched_more_slowly_except_by_approximation(encoder):
    small = CorpusShape(20_000, 600 * 20_000)
    assert (
        planned(encoder, IndexType.FLAT).ranked_per_s
        < planned(encoder, IndexType.FLAT, shape=small).ranked_per_s / 10
    )
    assert (
        planned(encoder, IndexType.HNSW).ranked_per_s
        > planned(encoder, IndexType.HNSW, shape=small).ranked_per_s / 2
    )


def test_words_need_no_encoder(encoder):
    plan = planned(None, IndexType.FLAT, Retriever.BM25)
    assert "vectors" not in plan.memory
    assert plan.memory["words"] > 0
    assert plan.searches_per_s == pytest.approx(plan.ranked_per_s)
    assert encoder.seen == []


def test_embedding_and_ranking_take_turns(encoder):
    plan = planned(encoder, IndexType.IVFPQ, Retriever.HYBRID)
    assert plan.searches_per_s < min(plan.embedded_per_s, plan.ranked_per_s)
    assert plan.build_s > 0
