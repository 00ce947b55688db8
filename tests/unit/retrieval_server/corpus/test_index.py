import json
import shutil

import numpy as np
import pytest

pytest.importorskip("faiss")

from retrieval_server.corpus import index as index_module
from retrieval_server.corpus.collection import load_corpus
from retrieval_server.corpus.index import (
    build_folder,
    build_in_memory,
    open_faiss_index,
    open_folder,
)
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.vectors import IndexType
from retrieval_server.encoder import QueryVectorCache
from retrieval_server.schemas import CollectionKind
from seg_common.errors import UsageError

TEXT = CollectionKind.TEXT


@pytest.fixture
def built(collections, encoder, tmp_path):
    build_folder(tmp_path / "index", collections[0], encoder, Retriever.HYBRID, IndexType.FLAT)
    return tmp_path / "index"


class Broken(Exception):
    pass


@pytest.mark.parametrize("retriever", Retriever)
def test_a_folder_finds_what_an_index_in_memory_finds(built, collections, memory, retriever):
    opened = open_folder(built, TEXT, collections[0].path, memory, retriever).ranker(retriever)
    made = build_in_memory(collections[0], memory, retriever).ranker(retriever)
    queries = ["blue kite", "painter born", "red star"]
    assert opened.rank(queries, 4) == made.rank(queries, 4)


def test_vectors_are_mapped_and_the_corpus_is_not_parsed_again(
    built, collections, memory, monkeypatch
):
    monkeypatch.setattr(index_module, "load_corpus", None, raising=False)
    opened = open_folder(built, TEXT, collections[0].path, memory, Retriever.DENSE)
    assert isinstance(opened.dense.index.vectors_ND, np.memmap)
    assert opened.words is None
    assert opened.collection[1].title == "Tarn Oskel"


def test_a_folder_that_is_up_to_date_is_left_as_it_is(built, collections, encoder):
    before = (built / "vectors.npy").stat().st_mtime_ns
    encoder.seen.clear()
    build_folder(built, collections[0], encoder, Retriever.HYBRID, IndexType.FLAT)
    assert (built / "vectors.npy").stat().st_mtime_ns == before
    assert all(len(texts) == 1 for texts in encoder.seen)  # the probe alone


def test_another_corpus_is_refused(built, collections, memory):
    changed = collections[0].path.with_name("changed.jsonl")
    changed.write_text(collections[0].path.read_text().replace("Tarn", "Tern"))
    with pytest.raises(
        UsageError,
        match=(
            r"stale: made of text corpus text_corpus.jsonl .*build it again: seg-research index"
            r" build --text"
        ),
    ):
        open_folder(built, TEXT, changed, memory, Retriever.DENSE)


def test_another_kind_is_refused(built, collections, memory):
    with pytest.raises(UsageError, match=r"stale: made of text corpus"):
        open_folder(built, CollectionKind.IMAGE, collections[0].path, memory, Retriever.DENSE)


def test_another_encoder_is_refused_even_under_the_same_name(built, collections, encoder):
    other = type(encoder)()
    other.encode = lambda texts, role=None, progress=None: encoder.encode(texts)[:, ::-1].copy()
    with pytest.raises(UsageError, match="stale: made with encoder words"):
        open_folder(built, TEXT, collections[0].path, QueryVectorCache(other), Retriever.DENSE)


def test_the_last_bits_of_another_processor_are_no_other_encoder(built, collections, encoder):
    other = type(encoder)()
    other.encode = lambda texts, role=None, progress=None: (
        encoder.encode(texts) * np.float32(1 + 1e-6)
    )
    assert open_folder(built, TEXT, collections[0].path, QueryVectorCache(other), Retriever.DENSE)


def test_a_folder_built_for_one_retriever_is_no_other(collections, encoder, memory, tmp_path):
    build_folder(tmp_path, collections[0], encoder, Retriever.DENSE, IndexType.FLAT)
    with pytest.raises(UsageError, match="was built for dense retrieval alone"):
        open_folder(tmp_path, TEXT, collections[0].path, memory, Retriever.BM25)


@pytest.mark.parametrize("damage", ["missing", "garbage", "older format"])
def test_an_unfinished_folder_is_refused(built, collections, memory, damage):
    manifest = built / "manifest.json"
    if damage == "missing":
        manifest.unlink()
    else:
        manifest.write_text(
            "{"
            if damage == "garbage"
            else json.dumps(json.loads(manifest.read_text()) | {"format_version": 0})
        )
    with pytest.raises(UsageError, match="not a finished index; build it again"):
        open_folder(built, TEXT, collections[0].path, memory, Retriever.DENSE)


def test_damaged_vectors_are_told(built, collections, memory):
    (built / "vectors.npy").write_bytes(b"\x93NUMPY garbage")
    with pytest.raises(UsageError, match=r"vectors.npy: cannot be read .*delete the folder"):
        open_folder(built, TEXT, collections[0].path, memory, Retriever.DENSE)


def large(tmp_path, num=30):
    path = tmp_path / "large.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": i, "contents": f"title{i}\nword{i} kite"}) + "\n" for i in range(num)
        )
    )
    return load_corpus(TEXT, path)


def test_an_interrupted_build_goes_on_where_it_was(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(index_module, "_PART_ENTRIES", 10)
    collection, whole = large(tmp_path), tmp_path / "whole"
    build_folder(whole, collection, encoder, Retriever.DENSE, IndexType.FLAT)
    encode, told = encoder.encode, []

    def fails_in_the_second_part(texts, role=None, progress=None):
        if texts[0].startswith("title10"):
            raise Broken
        return encode(texts, role, progress)

    monkeypatch.setattr(encoder, "encode", fails_in_the_second_part)
    with pytest.raises(Broken):
        build_folder(tmp_path / "index", collection, encoder, Retriever.DENSE, IndexType.FLAT)
    monkeypatch.setattr(encoder, "encode", encode)
    encoder.seen.clear()
    build_folder(
        tmp_path / "index",
        collection,
        encoder,
        Retriever.DENSE,
        IndexType.FLAT,
        lambda what, total: told.append,
    )
    assert sum(told) == 30
    embedded = [text for texts in encoder.seen if len(texts) > 1 for text in texts]
    assert [text.partition("\n")[0] for text in embedded] == [f"title{i}" for i in range(10, 30)]
    np.testing.assert_array_equal(
        np.load(tmp_path / "index/vectors.npy"), np.load(whole / "vectors.npy")
    )
    assert not (tmp_path / "index/parts").exists()


def test_parts_of_another_corpus_are_not_taken_over(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(index_module, "_PART_ENTRIES", 10)
    collection = large(tmp_path)
    encode = encoder.encode

    def fails_late(texts, role=None, progress=None):
        if texts[0].startswith("title20"):
            raise Broken
        return encode(texts, role, progress)

    monkeypatch.setattr(encoder, "encode", fails_late)
    with pytest.raises(Broken):
        build_folder(tmp_path / "index", collection, encoder, Retriever.DENSE, IndexType.FLAT)
    monkeypatch.setattr(encoder, "encode", encode)
    other = large(tmp_path, 25)
    build_folder(tmp_path / "index", other, encoder, Retriever.DENSE, IndexType.FLAT)
    assert np.load(tmp_path / "index/vectors.npy").shape == (25, 64)


def test_a_change_of_type_keeps_the_vectors(built, collections, encoder, memory):
    encoder.seen.clear()
    build_folder(built, collections[0], encoder, Retriever.DENSE, IndexType.HNSW)
    assert all(len(texts) == 1 for texts in encoder.seen)
    opened = open_folder(built, TEXT, collections[0].path, memory, Retriever.DENSE)
    assert type(opened.dense.index).__name__ == "HnswIndex"
    assert opened.dense.rank(["red star mascot"], 1)[0][0].row == 2


def alien(path, collection, encoder):
    import faiss

    index = faiss.IndexFlatIP(64)
    index.add(encoder.encode([entry.contents for entry in collection]))
    faiss.write_index(index, str(path))
    return path


def test_an_index_of_another_program_is_read_as_it_is(tmp_path, collections, encoder, memory):
    opened = open_faiss_index(
        alien(tmp_path / "a.index", collections[0], encoder), collections[0], memory
    )
    made = build_in_memory(collections[0], memory, Retriever.DENSE)
    assert opened.dense.rank(["blue kite", "red star"], 4) == made.dense.rank(
        ["blue kite", "red star"], 4
    )


def test_an_index_of_another_program_must_fit(tmp_path, collections, encoder, memory):
    path = alien(tmp_path / "a.index", collections[0], encoder)
    with pytest.raises(UsageError, match=r"holds 4 vectors, but .* has 3 entries"):
        open_faiss_index(path, collections[1], memory)
    narrow = type(encoder)()
    narrow.encode = lambda texts, role=None, progress=None: encoder.encode(texts)[:, :32].copy()
    with pytest.raises(
        UsageError,
        match=r"64 dimensions, but encoder words makes 32; name the encoder of the index",
    ):
        open_faiss_index(path, collections[0], QueryVectorCache(narrow))


def test_an_index_of_another_encoder_is_noticed(tmp_path, encoder):
    collection = large(tmp_path, 200)
    path = alien(tmp_path / "a.index", collection, encoder)
    other = type(encoder)()
    other.encode = lambda texts, role=None, progress=None: np.roll(encoder.encode(texts), 7, axis=1)
    with pytest.raises(UsageError, match="are not found by their own contents"):
        open_faiss_index(path, collection, QueryVectorCache(other))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, collections, encoder):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        build_folder(
            tmp_path / "file" / "index", collections[0], encoder, Retriever.DENSE, IndexType.FLAT
        )


def test_a_lost_part_of_a_finished_index_is_told(built, collections, memory):
    shutil.rmtree(built / "bm25")
    with pytest.raises(UsageError, match=r"cannot read this BM25 index"):
        open_folder(built, TEXT, collections[0].path, memory, Retriever.HYBRID)
