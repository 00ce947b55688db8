import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_server.collections import Collection, Entry, load_text_corpus
from retrieval_server.index import DenseIndex, build_index
from retrieval_server.schemas import CollectionKind


def index_of(vectors, tmp_path_name="c.jsonl"):
    from pathlib import Path

    entries = tuple(Entry(i, f"entry {i}") for i in range(len(vectors)))
    return DenseIndex(Collection(CollectionKind.TEXT, Path(tmp_path_name), entries), np.asarray(vectors, np.float32))


def found(index, query, top_k):
    return [match.entry.id for match in index.search(np.asarray(query, np.float32), top_k)]


def test_the_nearest_come_first():
    assert found(index_of([[0, 1], [1, 0], [0.6, 0.8]]), [1, 0], 3) == [1, 2, 0]


def test_ties_keep_the_order_of_the_corpus_also_at_the_cut():
    assert found(index_of([[0, 1], [1, 0], [1, 0], [1, 0]]), [1, 0], 2) == [1, 2]


def test_more_hits_than_entries_are_all_entries():
    assert found(index_of([[0, 1], [1, 0]]), [1, 0], 100) == [1, 0]


def test_the_last_bits_do_not_break_a_tie():
    almost_one = np.nextafter(np.float32(1), np.float32(0))
    assert found(index_of([[almost_one, 0], [1, 0]]), [1, 0], 2) == [0, 1]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 50))
def test_search_equals_a_stable_sort(cosines, top_k):
    index = index_of([[c / 3, 0] for c in cosines])
    expected = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:top_k]
    assert found(index, [1, 0], top_k) == expected


def test_a_cached_index_is_read_and_not_made_again(corpus, encoder, tmp_path):
    collection = load_text_corpus(corpus[0])
    done = []
    first = build_index(collection, encoder, cache=tmp_path, progress=done.append)
    encoder.seen.clear()
    second = build_index(collection, encoder, cache=tmp_path, progress=done.append)
    np.testing.assert_array_equal(first.embeddings_ND, second.embeddings_ND)
    assert all(len(texts) == 1 for texts in encoder.seen)  # the probe alone
    assert done == [4, 4]


def test_the_cache_tells_contents_and_encoders_apart(corpus, encoder, tmp_path):
    collection = load_text_corpus(corpus[0])
    build_index(collection, encoder, cache=tmp_path)
    build_index(Collection(collection.kind, collection.path, collection.entries[:-1]), encoder, cache=tmp_path)
    turned = type(encoder)()
    turned.encode = lambda texts, progress=None: -encoder.encode(texts, progress)
    other = build_index(collection, turned, cache=tmp_path)
    assert other.embeddings_ND.max() < 0
    assert len(list(tmp_path.glob("text-*.npy"))) == 3


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage", None])
def test_a_damaged_cache_is_replaced(corpus, encoder, tmp_path, caplog, damage):
    collection = load_text_corpus(corpus[0])
    good = build_index(collection, encoder, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    if damage is None:
        np.save(path, np.zeros((2, 3)))
    else:
        path.write_bytes(damage)
    again = build_index(collection, encoder, cache=tmp_path)
    np.testing.assert_array_equal(again.embeddings_ND, good.embeddings_ND)
    np.testing.assert_array_equal(np.load(path), good.embeddings_ND)
    assert "making them again" in caplog.text
