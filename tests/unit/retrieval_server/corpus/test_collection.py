import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_server.corpus.collection import load_corpus, sha256_of
from retrieval_server.schemas import CollectionKind
from seg_common.errors import UsageError


def test_a_passage_has_a_title_and_a_text(corpus):
    entries = [*load_corpus(CollectionKind.TEXT, corpus[0])]
    assert [entry.id for entry in entries] == [0, "b", 2, 3]
    assert (entries[1].title, entries[1].text) == (
        "Tarn Oskel",
        "Tarn Oskel is a painter who was born in Velmora.",
    )


def test_a_passage_may_be_a_title_alone_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"id": 1, "contents": "  Alone "}\n\n')
    (entry,) = load_corpus(CollectionKind.TEXT, path)
    assert (entry.title, entry.text) == ("Alone", "")


def test_images_are_found_beside_the_corpus_or_at_their_path_and_missing_ones_are_counted(
    corpus, caplog
):
    collection = load_corpus(CollectionKind.IMAGE, corpus[1])
    found = [entry.image for entry in collection]
    assert found == [
        corpus[1].parent / "images/velmora.png",
        corpus[1].parent / "elsewhere/quillon.jpg",
        None,
    ]
    assert "1 of 3 images are missing (first: 'crest of Nobody')" in caplog.text


def test_image_path_may_start_at_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "a.png").write_bytes(b"x")
    path = tmp_path / "corpora" / "c.jsonl"
    path.parent.mkdir()
    path.write_text(
        json.dumps({"id": 0, "name": "a", "filename": "a.png", "image_path": "kb/a.png"})
    )
    monkeypatch.chdir(tmp_path)
    assert load_corpus(CollectionKind.IMAGE, path)[0].image == tmp_path / "kb" / "a.png"


GOOD = '{"id": 0, "contents": "t", "name": "t", "filename": "f.png"}'


@pytest.mark.parametrize("kind", CollectionKind)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"contents": "t", "name": "t", "filename": "f"}', "'id' is None"),
        ('{"id": true, "contents": "t", "name": "t", "filename": "f"}', "'id' is True"),
        (
            '{"id": 1, "contents": " ", "name": " ", "filename": "f"}',
            "expected a string that is not empty",
        ),
        ('{"id": 1, "contents": 5, "name": 5, "filename": "f"}', "is 5; expected a string"),
    ],
)
def test_a_broken_line_is_named(tmp_path, kind, line, said):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(UsageError, match=r"c\.jsonl line 2: ") as raised:
        load_corpus(kind, path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("stated", ["/etc/passwd", "../../secret.png", "a/../../b.png", "a\0b"])
@pytest.mark.parametrize("key", ["filename", "image_path"])
def test_an_image_may_not_lie_outside(tmp_path, stated, key):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"id": 0, "name": "a", "filename": "a.png", key: stated}))
    with pytest.raises(UsageError, match=r"line 1: .*expected a relative path"):
        load_corpus(CollectionKind.IMAGE, path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    path = tmp_path / "c.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="holds no entries"):
        load_corpus(CollectionKind.TEXT, path)


def test_a_missing_corpus_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_corpus(CollectionKind.TEXT, tmp_path / "nope.jsonl")


def test_repeated_ids_are_told_and_kept(tmp_path, caplog):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    assert len(load_corpus(CollectionKind.TEXT, path)) == 2
    assert "1 entries bear an id that another one has too" in caplog.text


def test_a_lone_surrogate_does_not_reach_the_tokenizer(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 0, "contents": "a \\ud800 b"}')
    (entry,) = load_corpus(CollectionKind.TEXT, path)
    assert entry.contents.encode("utf-8") == b"a ? b"


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_entry_is_read_from_its_own_place(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl"
    lines = [
        json.dumps({"id": i, "contents": text}, ensure_ascii=i % 2 == 0) + "\n" * (1 + blanks)
        for i, (text, blanks) in enumerate(written)
    ]
    path.write_bytes("".join(lines).encode().rstrip(b"\n"))
    collection = load_corpus(CollectionKind.TEXT, path)
    order = [*range(len(written))][::-1]
    assert [collection[i].id for i in order] == order
    assert [entry.contents for entry in collection] == [text.strip() for text, _ in written]
    assert collection.sha256 == sha256_of(path)


def test_a_corpus_that_shrank_in_place_costs_a_reply_and_not_the_process(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    collection = load_corpus(CollectionKind.TEXT, path)
    path.write_text("")
    with pytest.raises(UsageError, match="not valid JSON"):
        collection[1]


def test_a_large_corpus_is_no_pile_of_objects(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": i, "contents": f"title {i}\n" + "x" * 200}) + "\n"
            for i in range(20_000)
        )
    )
    tracemalloc.start()
    collection = load_corpus(CollectionKind.TEXT, path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(collection) == 20_000
    assert kept < 20_000 * 20
