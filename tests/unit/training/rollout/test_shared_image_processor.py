"""Sharing pixels changes who computes them, and nothing of what the trainer gets."""

import numpy as np
import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch
from PIL import Image

from seg_research.policies.processor import load_processor
from seg_research.training.rollout.shared_image_processor import (
    SharedPixels,
    share_pixels,
    token_counter,
)

TEXT = [
    "see <|vision_start|><|image_pad|><|vision_end|> and"
    " <|vision_start|><|image_pad|><|vision_end|>"
]


def image(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture
def processor(tiny_folder):
    """One of its own: it is changed here."""
    return load_processor(tiny_folder)


class Counting:
    """Lists how many images are computed at a time."""

    def __init__(self, inner):
        self.inner, self.calls = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, images, **options):
        self.calls.append(len(images))
        return self.inner(images, **options)


def test_the_trainer_gets_the_same_numbers(processor):
    images = [image(1), image(2, 96, 32)]
    plain = processor(text=TEXT, images=images, return_tensors="pt")
    share_pixels(processor)
    for _ in range(2):
        shared = processor(text=TEXT, images=images, return_tensors="pt")
        assert shared.keys() == plain.keys()
        assert all(
            torch.equal(torch.as_tensor(shared[name]), torch.as_tensor(plain[name]))
            for name in plain
        )


def test_the_counter_gives_the_same_tokens_and_computes_no_pixels_of_what_is_shown(processor):
    plain = processor(text=TEXT, images=[image(1), image(2)], return_tensors="pt")
    inner = processor.image_processor = Counting(processor.image_processor)
    counter = token_counter(processor)
    for seed in (1, 3, 5):
        counted = counter(text=TEXT, images=[image(seed), image(seed + 1)], return_tensors="pt")
        assert torch.equal(
            torch.as_tensor(counted["input_ids"]), torch.as_tensor(plain["input_ids"])
        )
        assert "pixel_values" not in counted
    assert inner.calls == [1]  # a blank image of that size


def test_a_text_is_encoded_once_for_images_of_the_same_sizes(processor, monkeypatch):
    encoded = []
    inner = type(processor).__call__
    monkeypatch.setattr(
        type(processor),
        "__call__",
        lambda self, **given: encoded.append(given) or inner(self, **given),
    )
    counter = token_counter(processor)
    assert token_counter(processor) is counter

    def count(text, *images):
        return counter(text=text, images=list(images) or None, videos=None, return_tensors="pt")[
            "input_ids"
        ]

    first = count(TEXT, image(1), image(2))
    assert torch.equal(count(TEXT, image(3), image(4)), first)
    assert len(encoded) == 1
    assert count(TEXT, image(1), image(2, 96, 32)).shape != first.shape
    assert count(["see"]).shape != first.shape
    assert len(encoded) == 3


def test_who_is_given_tokens_may_do_with_them_what_he_likes(processor):
    counter = token_counter(processor)
    given = counter(text=["see"], images=None, videos=None, return_tensors="pt")
    given.pop("input_ids")
    assert "input_ids" in counter(text=["see"], images=None, videos=None, return_tensors="pt")


def test_each_image_is_computed_once_and_only_joined_afterwards(processor):
    inner = processor.image_processor = Counting(processor.image_processor)
    shared = share_pixels(processor)
    frame, other = image(1), image(2)
    shared.prepare([frame])
    shared.prepare([frame, other])
    processor(text=TEXT, images=[frame, other], return_tensors="pt")
    assert inner.calls == [1, 1]
    assert share_pixels(processor) is shared


def test_equal_images_of_other_identity_are_not_mixed_up():
    made = SharedPixels(
        lambda images, **_: {"pixel_values": torch.tensor([images[0].getpixel((0, 0))[0]])},
        max_bytes=1,
    )
    values = [
        made([Image.new("RGB", (4, 4), (red, 0, 0))], return_tensors="pt")["pixel_values"].item()
        for red in range(20)
    ]
    assert values == list(range(20))


def test_who_asks_for_something_else_is_served_by_the_image_processor(processor):
    shared = share_pixels(processor)
    assert isinstance(shared([image(1)], return_tensors="np")["pixel_values"], np.ndarray)
    assert shared.merge_size == 2


def test_a_placeholder_that_lost_tokens_is_still_refused(processor):
    share_pixels(processor)
    with pytest.raises(ValueError, match="Mismatch in `image` token count"):
        processor(
            text=TEXT,
            images=[image(1), image(2)],
            return_tensors="pt",
            truncation=True,
            max_length=10,
        )
