import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("faiss")
pytest.importorskip("bm25s")

from retrieval_server.corpus.index import build_in_memory
from retrieval_server.corpus.ranking import Retriever, fused
from retrieval_server.corpus.vectors import Ranked
from seg_common.errors import UsageError

RANKING = st.lists(st.integers(0, 30), unique=True, max_size=20).map(
    lambda rows: [Ranked(row, 1.0) for row in rows]
)


def test_a_row_earns_from_both_rankings():
    by_meaning, by_words = [Ranked(7, 0.9), Ranked(3, 0.8)], [Ranked(3, 12.0), Ranked(5, 2.0)]
    assert fused([by_meaning, by_words]) == [
        Ranked(3, round(1 / 62 + 1 / 61, 5)),
        Ranked(7, round(1 / 61, 5)),
        Ranked(5, round(1 / 62, 5)),
    ]


@given(RANKING, RANKING)
def test_fusion_keeps_every_row_once_and_is_symmetric(one, other):
    hits = fused([one, other])
    assert {hit.row for hit in hits} == {hit.row for hit in one + other}
    assert len(hits) == len({hit.row for hit in hits})
    assert hits == fused([other, one])
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.row))


@pytest.mark.parametrize("retriever", Retriever)
def test_hits_do_not_depend_on_what_is_asked_with_them(collections, memory, retriever):
    ranker = build_in_memory(collections[0], memory, retriever).ranker(retriever)
    queries = ["blue kite", "painter", "red star mascot", "Velmora harbour", "nothing at all"]
    assert ranker.rank(queries, 3) == [ranker.rank([query], 3)[0] for query in queries]
    assert ranker.rank(queries[::-1], 3) == ranker.rank(queries, 3)[::-1]


def test_an_index_serves_only_what_it_was_built_for(collections, memory):
    index = build_in_memory(collections[0], memory, Retriever.DENSE)
    with pytest.raises(
        UsageError, match="cannot do hybrid retrieval; build it with --retriever hybrid"
    ):
        index.ranker(Retriever.HYBRID)
