import json

import pytest

from retrieval_server.collections import load_image_corpus, load_text_corpus
from seg_research.core.errors import UsageError


def test_a_passage_has_a_title_and_a_text(corpus):
    entries = load_text_corpus(corpus[0]).entries
    assert [entry.id for entry in entries] == [0, "b", 2, 3]
    assert (entries[1].title, entries[1].text) == ("Tarn Oskel", "Tarn Oskel is a painter who was born in Velmora.")


def test_a_passage_may_be_a_title_alone_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"id": 1, "contents": "  Alone "}\n\n')
    (entry,) = load_text_corpus(path).entries
    assert (entry.title, entry.text) == ("Alone", "")


def test_pictures_are_found_beside_the_corpus_or_at_their_path_and_missing_ones_are_counted(corpus, caplog):
    collection = load_image_corpus(corpus[1])
    found = [entry.picture for entry in collection.entries]
    assert found == [corpus[1].parent / "images/velmora.png", corpus[1].parent / "elsewhere/quillon.jpg", None]
    assert "1 of 3 pictures are missing (first: 'crest of Nobody')" in caplog.text


def test_image_path_may_start_at_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "a.png").write_bytes(b"x")
    path = tmp_path / "corpora" / "c.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"id": 0, "name": "a", "filename": "a.png", "image_path": "kb/a.png"}))
    monkeypatch.chdir(tmp_path)
    assert load_image_corpus(path).entries[0].picture == tmp_path / "kb" / "a.png"


GOOD = '{"id": 0, "contents": "t", "name": "t", "filename": "f.png"}'


@pytest.mark.parametrize("load", [load_text_corpus, load_image_corpus])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"contents": "t", "name": "t", "filename": "f"}', "'id' is None"),
        ('{"id": true, "contents": "t", "name": "t", "filename": "f"}', "'id' is True"),
        ('{"id": 1, "contents": " ", "name": " ", "filename": "f"}', "expected a string that is not empty"),
        ('{"id": 1, "contents": 5, "name": 5, "filename": "f"}', "is 5; expected a string"),
    ],
)
def test_a_broken_line_is_named(tmp_path, load, line, said):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(UsageError, match=r"c\.jsonl line 2: ") as raised:
        load(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("stated", ["/etc/passwd", "../../secret.png", "a/../../b.png", "a\0b"])
@pytest.mark.parametrize("key", ["filename", "image_path"])
def test_a_picture_may_not_lie_outside(tmp_path, stated, key):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"id": 0, "name": "a", "filename": "a.png", key: stated}))
    with pytest.raises(UsageError, match=r"line 1: .*expected a relative path"):
        load_image_corpus(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    path = tmp_path / "c.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="holds no entries"):
        load_text_corpus(path)


def test_a_missing_corpus_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_text_corpus(tmp_path / "nope.jsonl")


def test_repeated_ids_are_told_and_kept(tmp_path, caplog):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    assert len(load_text_corpus(path).entries) == 2
    assert "1 ids stand for several entries" in caplog.text


def test_a_lone_surrogate_does_not_reach_the_tokenizer(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 0, "contents": "a \\ud800 b"}')
    (entry,) = load_text_corpus(path).entries
    assert entry.contents.encode("utf-8") == b"a ? b"
