import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("faiss")

from retrieval_server.corpus import vectors as vectors_module
from retrieval_server.corpus.vectors import (
    FlatIndex,
    HnswIndex,
    IndexType,
    IvfPqIndex,
    build_faiss,
    flat_from_faiss,
    num_lists,
    open_faiss,
)
from seg_common.errors import UsageError


def unit(num, dimensions=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def found(vectors, query, top_k):
    (hits,) = FlatIndex(np.asarray(vectors, np.float32)).search(
        np.asarray([query], np.float32), top_k
    )
    return [hit.row for hit in hits]


def test_the_nearest_come_first():
    assert found([[0, 1], [1, 0], [0.6, 0.8]], [1, 0], 3) == [1, 2, 0]


def test_ties_keep_the_order_of_the_corpus_also_at_the_cut():
    assert found([[0, 1], [1, 0], [1, 0], [1, 0]], [1, 0], 2) == [1, 2]


def test_more_ties_than_candidates_are_all_looked_at():
    rows = unit(300)
    rows[5::2] = rows[5]
    assert found(rows, rows[5], 3) == [5, 7, 9]
    assert found(rows[::-1].copy(), rows[5], 2) == [0, 2]


def test_more_hits_than_entries_are_all_entries():
    assert found([[0, 1], [1, 0]], [1, 0], 100) == [1, 0]


def test_the_last_bits_do_not_break_a_tie():
    almost_one = np.nextafter(np.float32(1), np.float32(0))
    assert found([[almost_one, 0], [1, 0]], [1, 0], 2) == [0, 1]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(1, 70))
def test_search_equals_a_stable_sort(cosines, top_k):
    expected = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:top_k]
    assert found([[c / 3, 0] for c in cosines], [1, 0], top_k) == expected


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the vectors and an index of each type over them."""
    folder = tmp_path_factory.mktemp("index")
    rows = unit(10_000)
    np.save(folder / "vectors.npy", rows)
    indexes = {IndexType.FLAT: FlatIndex(np.load(folder / "vectors.npy", mmap_mode="r"))}
    for kind, num in ((IndexType.HNSW, 1_500), (IndexType.IVFPQ, len(rows))):
        done = []
        build_faiss(kind, rows[:num], folder / kind, done.append)
        assert sum(done) == num
        opened = open_faiss(folder / kind)
        indexes[kind] = HnswIndex(opened) if kind is IndexType.HNSW else IvfPqIndex(opened, rows)
    return rows, indexes


@pytest.mark.parametrize("kind", IndexType)
def test_hits_do_not_depend_on_what_is_searched_with_them(built, kind):
    _, indexes = built
    queries = unit(64, seed=1)
    together = indexes[kind].search(queries, 7)
    assert [indexes[kind].search(query[None], 7)[0] for query in queries[:20]] == together[:20]
    assert indexes[kind].search(queries[::-1].copy(), 7) == together[::-1]


@pytest.mark.parametrize(("kind", "least"), [(IndexType.HNSW, 0.95), (IndexType.IVFPQ, 0.6)])
def test_approximate_types_find_most_of_what_is_there_with_its_exact_score(built, kind, least):
    rows, indexes = built
    queries = unit(50, seed=2)
    exact, near = (
        FlatIndex(rows[: len(indexes[kind])]).search(queries, 10),
        indexes[kind].search(queries, 10),
    )
    recall = np.mean(
        [
            len({hit.row for hit in a} & {hit.row for hit in b}) / 10
            for a, b in zip(exact, near, strict=True)
        ]
    )
    assert recall >= least
    score_of = {(q, hit.row): hit.score for q, hits in enumerate(exact) for hit in hits}
    shared = [
        (hit.score, score_of[q, hit.row])
        for q, hits in enumerate(near)
        for hit in hits
        if (q, hit.row) in score_of
    ]
    np.testing.assert_allclose(*np.array(shared).T, atol=2e-5)


def test_a_flat_faiss_file_is_read_as_it_is(tmp_path):
    import faiss

    rows = unit(50)
    index = faiss.IndexFlatIP(16)
    index.add(rows)
    faiss.write_index(index, str(tmp_path / "a.index"))
    opened = flat_from_faiss(tmp_path / "a.index")
    assert opened.search(rows[:3], 4) == FlatIndex(rows).search(rows[:3], 4)


def test_other_files_are_refused(tmp_path):
    import faiss

    faiss.write_index(faiss.IndexFlatL2(8), str(tmp_path / "l2.index"))
    (tmp_path / "text").write_text("no index")
    for name, said in (
        ("l2.index", "expected a flat index by inner product"),
        ("text", "not a FAISS index that can be read"),
    ):
        with pytest.raises(UsageError, match=said):
            flat_from_faiss(tmp_path / name)


def test_a_corpus_too_small_for_compression_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"ivfpq needs at least 9984 entries .*; use --type flat"):
        build_faiss(IndexType.IVFPQ, unit(100), tmp_path / "x")


@settings(max_examples=30)
@given(st.integers(1, 10**9))
def test_clusters_have_enough_to_learn_from(num_entries):
    chosen = num_lists(num_entries)
    assert 1 <= chosen <= max(1, num_entries // vectors_module._TRAINING_ROWS_PER_LIST)
