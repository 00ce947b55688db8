import os
from pathlib import Path

import numpy as np
import pytest

from retrieval_server.collections import load_text_corpus
from retrieval_server.encoder import load_encoder
from retrieval_server.index import build_index
from seg_research.core.errors import UsageError

SHARED = Path(__file__).parents[4] / "shared"
TEXTS = ["a red kite", "who won the cup in 1998?", "", "mañana 東京 🙂", "kite " * 60, "kite " * 900] + [
    f"query number {i}" * (i % 9) for i in range(40)
]


def test_vectors_have_length_one(minilm):
    vectors = minilm.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_text_gets_the_same_bits_in_any_company_and_order(minilm):
    together = minilm.encode(TEXTS)
    shuffled = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_array_equal(minilm.encode([TEXTS[i] for i in shuffled]), together[shuffled])
    np.testing.assert_array_equal(np.concatenate([minilm.encode([text]) for text in TEXTS]), together)


def test_the_library_itself_would_say_the_same(minilm):
    theirs = minilm._model.encode(TEXTS, batch_size=1, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(minilm.encode(TEXTS), theirs, atol=1e-6)


def test_meaning_is_what_counts(minilm):
    question, near, far = minilm.encode(["who painted the ceiling", "a fresco by Michelangelo", "the price of diesel fuel"])
    assert question @ near > question @ far + 0.1


def test_progress_adds_up(minilm):
    done = []
    minilm.encode(TEXTS, done.append)
    assert sum(done) == len(TEXTS)
    assert len(done) > 1


def test_an_unknown_model_is_one_line_and_the_environment_is_left_alone(minilm, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("no-such-organisation/no-such-model", str(tmp_path)):
        with pytest.raises(UsageError, match=r"--encoder .*leave --encoder out") as raised:
            load_encoder(name, num_threads=1)
        assert "\n" not in str(raised.value)
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.fixture(scope="module")
def recorded(minilm):
    """Index the passages that the original's recorded rollouts searched."""
    path = SHARED / "data/local_kb/text_corpus.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return build_index(load_text_corpus(path), minilm)


def ranks(index, encoder, queries, wanted):
    """Rank of each wanted entry, told by title or contents, among the hits of its query; 101 where it is not among 100."""
    found = []
    for vector, is_wanted in zip(encoder.encode(queries), wanted, strict=True):
        hits = [match.entry for match in index.search(vector, 100)]
        found.append(next((rank for rank, entry in enumerate(hits, 1) if is_wanted(entry)), 101))
    return np.array(found)


@pytest.mark.shared
def test_a_title_finds_its_passage_in_the_recorded_corpus(recorded, minilm):
    """Not all at rank 1: titles such as `Bono` or `Xiaomi` are nearer to other passages about them (19 of 185)."""
    titles = [entry.title for entry in recorded.collection.entries]
    found = ranks(recorded, minilm, titles, [lambda entry, title=title: entry.title == title for title in titles])
    assert np.mean(found == 1) >= 0.88
    assert np.mean(found <= 3) >= 0.98


@pytest.mark.shared
def test_title_and_opening_words_find_their_passage_first(recorded, minilm):
    entries = recorded.collection.entries
    queries = [f"{entry.title} {' '.join(entry.text.split()[:12])}" for entry in entries]
    found = ranks(recorded, minilm, queries, [lambda entry, own=own: entry.contents == own.contents for own in entries])
    print(f"recall@1 {np.mean(found == 1):.3f}")
    assert np.mean(found == 1) >= 0.95
