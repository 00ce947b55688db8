"""A model with a head start finds what followed a word before, untrained, and knows where image
tokens are.
"""

import random

import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch

from seg_research.mini.curriculum import ExampleEncoder
from seg_research.mini.induction_init import write_induction_circuit
from seg_research.mini.pretraining_data.training_example import TrainingExample
from seg_research.mini.qwen3vl_cpu_forward import CpuForward
from seg_research.mini.tiny_model import COLD_START, build_model


def share_of_repeated_words_known(tokenizer, *, head_start):
    model = build_model(tokenizer, COLD_START, seed=0)
    if head_start:
        write_induction_circuit(model, tokenizer, seed=0)
    rng = random.Random(0)
    example = TrainingExample()
    first = [tokenizer.decode([rng.randrange(100, len(tokenizer) - 20)]) for _ in range(60)]
    example.add_context("".join(first))
    for _ in range(8):
        start = rng.randrange(50)
        example.add_context("".join(first[start : start + 2]))
        example.add_target("".join(first[start + 2 : start + 8]))
    with torch.no_grad():
        _, hits = CpuForward(model, compiled=False).loss(
            ExampleEncoder(tokenizer).batch([example], 256)
        )
    return float(hits.float().mean())


def test_it_finds_what_followed_before(tiny_processor):
    assert share_of_repeated_words_known(tiny_processor.tokenizer, head_start=False) < 0.05
    assert share_of_repeated_words_known(tiny_processor.tokenizer, head_start=True) > 0.12


def test_equal_seeds_give_equal_weights(tiny_processor):
    weights = []
    for seed in (1, 1, 2):
        model = build_model(tiny_processor.tokenizer, COLD_START, seed=0)
        write_induction_circuit(model, tiny_processor.tokenizer, seed)
        weights.append(
            model.model.language_model.layers[1].self_attn.q_proj.weight.detach().clone()
        )
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
