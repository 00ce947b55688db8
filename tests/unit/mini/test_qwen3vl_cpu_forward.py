"""The fast forward pass says what transformers says, with pictures of two sizes in one batch, and
has the same gradients.
"""

import numpy as np
import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch
from PIL import Image

from seg_research.mini.curriculum import Encoder
from seg_research.mini.pretraining_data.lesson import Lesson, user
from seg_research.mini.qwen3vl_cpu_forward import FastForward
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


def lessons():
    rng = np.random.default_rng(0)
    found = []
    for sides in ((64, 64, 96), (96,), ()):
        lesson = Lesson()
        shown = " ".join(
            lesson.picture(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in sides
        )
        lesson.show(user(f"where is it? {shown}"))
        lesson.say("<thinking> there </thinking>")
        found.append(lesson)
    return found


def by_transformers(model, processor, lesson, encoder):
    """Logits (L, V) of one lesson through the processor and the whole model."""
    ids = torch.tensor([encoder.tokens(lesson)[0]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if lesson.pictures:
        features = processor.image_processor(
            images=[Image.fromarray(p) for p in lesson.pictures], return_tensors="pt"
        )
        image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        inputs |= {**features, "mm_token_type_ids": (ids == image_id).long()}
    return model(**inputs).logits[0]


def test_it_says_what_transformers_says(model, tiny_processor):
    encoder, fast = Encoder(tiny_processor.tokenizer), FastForward(model, compiled=False)
    asked = lessons()
    batch = encoder.batch(asked, 128)
    with torch.no_grad():
        ours = fast.logits(batch)
        theirs = [by_transformers(model, tiny_processor, lesson, encoder) for lesson in asked]
    rows, places = batch.chosen // 128, batch.chosen % 128
    expected = torch.stack(
        [theirs[row][place] for row, place in zip(rows.tolist(), places.tolist(), strict=True)]
    )
    assert ours.shape == expected.shape
    assert torch.allclose(ours, expected, atol=2e-4)


def test_gradients_reach_the_eyes(model, tiny_processor):
    fast = FastForward(model, compiled=False)
    loss, hits = fast.loss(Encoder(tiny_processor.tokenizer).batch(lessons(), 128))
    loss.backward()
    assert len(hits) == len(fast.logits(Encoder(tiny_processor.tokenizer).batch(lessons(), 128)))
    assert float(model.model.visual.patch_embed.proj.weight.grad.abs().sum()) > 0
    model.zero_grad()
