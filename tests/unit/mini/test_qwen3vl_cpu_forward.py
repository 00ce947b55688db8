"""The fast forward pass says what transformers says, with images of two sizes in one batch, and
has the same gradients.
"""

import numpy as np
import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch
from PIL import Image

from seg_research.mini.curriculum import ExampleEncoder
from seg_research.mini.pretraining_data.training_example import TrainingExample, user
from seg_research.mini.qwen3vl_cpu_forward import CpuForward
from seg_research.mini.tiny_model import TinySize, build_model
from seg_research.policies.processor import IMAGE_TOKEN

SMALL = TinySize(
    hidden=48,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    feed_forward=32,
    vision_hidden=32,
    vision_layers=2,
    rope_theta=1e6,
)


@pytest.fixture(scope="module")
def model(tiny_processor):
    torch.manual_seed(0)
    return build_model(tiny_processor.tokenizer, SMALL, seed=3).eval()


def examples():
    rng = np.random.default_rng(0)
    found = []
    for sides in ((64, 64, 96), (96,), ()):
        example = TrainingExample()
        shown = " ".join(
            example.add_image(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
            for side in sides
        )
        example.add_context(user(f"where is it? {shown}"))
        example.add_target("<thinking> there </thinking>")
        found.append(example)
    return found


def by_transformers(model, processor, example, encoder):
    """Logits (L, V) of one example through the processor and the whole model."""
    ids = torch.tensor([encoder.tokens(example)[0]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if example.images:
        features = processor.image_processor(
            images=[Image.fromarray(p) for p in example.images], return_tensors="pt"
        )
        image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        inputs |= {**features, "mm_token_type_ids": (ids == image_id).long()}
    return model(**inputs).logits[0]


def test_it_says_what_transformers_says(model, tiny_processor):
    encoder, fast = ExampleEncoder(tiny_processor.tokenizer), CpuForward(model, compiled=False)
    asked = examples()
    batch = encoder.batch(asked, 128)
    with torch.no_grad():
        ours = fast.logits(batch)
        theirs = [by_transformers(model, tiny_processor, example, encoder) for example in asked]
    rows, places = batch.chosen // 128, batch.chosen % 128
    expected = torch.stack(
        [theirs[row][place] for row, place in zip(rows.tolist(), places.tolist(), strict=True)]
    )
    assert ours.shape == expected.shape
    assert torch.allclose(ours, expected, atol=2e-4)


def test_gradients_reach_the_image_encoder(model, tiny_processor):
    fast = CpuForward(model, compiled=False)
    loss, hits = fast.loss(ExampleEncoder(tiny_processor.tokenizer).batch(examples(), 128))
    loss.backward()
    assert len(hits) == len(
        fast.logits(ExampleEncoder(tiny_processor.tokenizer).batch(examples(), 128))
    )
    assert float(model.model.visual.patch_embed.proj.weight.grad.abs().sum()) > 0
    model.zero_grad()
