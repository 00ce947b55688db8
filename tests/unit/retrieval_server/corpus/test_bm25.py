import numpy as np
import pytest

pytest.importorskip("bm25s")

from retrieval_server.corpus.bm25 import build_bm25, open_bm25, save_bm25
from seg_common.errors import UsageError

TEXTS = [
    "Velmora\nVelmora is a harbour town whose emblem is the blue kite.",
    "Tarn Oskel\nTarn Oskel is a painter who was born in Velmora.",
    "Quillon\nThe team Quillon keeps a red star as its mascot.",
    "Velmora\nVelmora is a harbour town whose emblem is the blue kite.",
]


@pytest.fixture(scope="module")
def ranker():
    return build_bm25(TEXTS)


def rows(ranker, query, top_k=4):
    return [hit.row for hit in ranker.rank([query], top_k)[0]]


def test_shared_words_are_found_whatever_their_ending_and_case(ranker):
    assert rows(ranker, "MASCOTS of teams") == [2]
    assert rows(ranker, "painters") == [1]


def test_ties_keep_the_order_of_the_corpus_also_at_the_cut(ranker):
    assert rows(ranker, "kite") == [0, 3]
    assert rows(ranker, "kite", 1) == [0]


@pytest.mark.parametrize("query", ["xylophone", "the of is", "?!", "東京", "a"])
def test_what_shares_no_word_is_not_found(ranker, query):
    assert rows(ranker, query) == []


def test_rare_words_count_more_than_common_ones(ranker):
    (hits,) = ranker.rank(["painter Velmora"], 4)
    assert hits[0].row == 1
    assert hits[0].score > hits[1].score > 0


def test_hits_do_not_depend_on_what_is_asked_with_them(ranker):
    queries = ["kite", "red star", "painter born", "Velmora town", "nothing like it"]
    assert ranker.rank(queries, 3) == [ranker.rank([query], 3)[0] for query in queries]


def test_a_saved_index_says_the_same_and_is_mapped(ranker, tmp_path):
    for _ in range(2):  # the second replaces the first
        save_bm25(ranker, tmp_path / "bm25")
    opened = open_bm25(tmp_path / "bm25")
    assert opened.rank(["red star", "kite"], 3) == ranker.rank(["red star", "kite"], 3)
    assert isinstance(opened.index.scores["data"], np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["bm25"]


def test_what_is_no_index_is_told(tmp_path):
    with pytest.raises(UsageError, match="build it again"):
        open_bm25(tmp_path)


def test_a_corpus_without_words_is_told():
    with pytest.raises(UsageError, match="holds no words"):
        build_bm25(["?", "!!"])


def test_progress_adds_up():
    done = []
    build_bm25((f"word{i}" for i in range(1300)), done.append)
    assert sum(done) == 1300
    assert len(done) > 1
