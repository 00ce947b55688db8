import json
import zlib

import numpy as np
import pytest

pytest.importorskip("faiss")
pytest.importorskip("bm25s")

from retrieval_server import encoder as encoder_module
from seg_research.cli.main import main


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text_corpus.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": i, "contents": f"title {i}\nword{i} kite"}) + "\n" for i in range(20)
        )
    )
    return path


class WordEncoder:
    """Bag of hashed words."""

    name = "words"

    def encode(self, texts, role=None, progress=None):
        vectors = np.full((len(texts), 64), 1e-3, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split():
                row[zlib.crc32(word.encode()) % 64] += 1
        if progress:
            progress(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_index_is_built_judged_and_planned(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(encoder_module, "load_encoder", lambda name, num_threads: WordEncoder())
    of = ["--text", str(corpus)]
    assert (
        main(
            [
                "index",
                "build",
                *of,
                "--out",
                str(tmp_path / "i"),
                "--retriever",
                "hybrid",
                "--type",
                "hnsw",
            ]
        )
        == 0
    )
    assert (
        "20 entries of text_corpus.jsonl (hybrid, hnsw, encoder words)" in capsys.readouterr().out
    )
    assert main(["index", "eval", *of, "--index", str(tmp_path / "i"), "--queries", "5"]) == 0
    said = capsys.readouterr().out
    assert "recall@1   1.000" in said
    assert "5 titles of 20 entries" in said
    assert main(["index", "plan", *of]) == 0
    assert "embedding" in capsys.readouterr().out
    corpus.write_text(corpus.read_text().replace("kite", "star"))
    assert main(["index", "eval", *of, "--index", str(tmp_path / "i")]) == 2
    assert "stale: made of text corpus" in capsys.readouterr().err


def test_words_are_indexed_and_planned_without_an_encoder(corpus, tmp_path, capsys):
    of = ["--text", str(corpus), "--retriever", "bm25"]
    assert main(["index", "build", *of, "--out", str(tmp_path / "i")]) == 0
    assert "20 entries of text_corpus.jsonl (bm25)" in capsys.readouterr().out
    assert not (tmp_path / "i" / "vectors.npy").exists()
    assert main(["index", "plan", *of]) == 0
    said = capsys.readouterr().out
    assert said.startswith("entries   20\nmemory ")
    assert "searches  about" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan"], "name a corpus (--text or --images) or the size of one"),
        (["plan", "--entries", "5", "--text", "x"], "not both"),
        (["plan", "--entries", "0"], "--entries 0: expected at least 1"),
        (["plan", "--text", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["build", "--text", "nowhere.jsonl", "--out", "x"], "nowhere.jsonl: no such file"),
        (["build", "--text", "nowhere.jsonl", "--out", "x", "--threads", "0"], "--threads 0"),
        (
            ["eval", "--text", "x", "--index", "y", "--queries", "0"],
            "--queries 0: expected at least 1",
        ),
    ],
)
def test_bad_options_are_one_line(capsys, arguments, said):
    assert main(["index", *arguments]) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown
    assert "\n" not in shown
