"""The tiny model is an ordinary Qwen3-VL checkpoint folder whose tokenizer suits the actions and
the coordinate grid.
"""

import json

import pytest

pytest.importorskip("torch", reason="models need the train extra")
pytest.importorskip("transformers", reason="models need the train extra")

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from seg_common.errors import UsageError
from seg_research.mini.grid import COORDINATE_STEP, PATCH_FACTOR_PX
from seg_research.mini.tiny_model import TinySize, build_model, build_tokenizer
from seg_research.policies.processor import IMAGE_TOKEN, VISION_TOKENS, load_processor

TAGS = [
    f"<{slash}{name}>"
    for name in ("thinking", "search", "information", "keyframe", "answer")
    for slash in ("", "/")
]


@pytest.fixture(scope="module")
def model(tiny_folder):
    return AutoModelForImageTextToText.from_pretrained(tiny_folder, dtype=torch.float32)


def test_the_vocabulary_of_the_model_is_the_tokenizers(model, tiny_processor):
    assert model.config.text_config.vocab_size == len(tiny_processor.tokenizer)
    assert model.get_output_embeddings().weight.shape[0] == len(tiny_processor.tokenizer)


def test_the_model_knows_the_ids_of_its_special_tokens(model, tiny_processor):
    token = tiny_processor.tokenizer.convert_tokens_to_ids
    config = model.config
    assert config.image_token_id == token("<|image_pad|>")
    assert (config.vision_start_token_id, config.vision_end_token_id) == (
        token("<|vision_start|>"),
        token("<|vision_end|>"),
    )
    assert (
        model.generation_config.eos_token_id
        == token("<|im_end|>")
        == tiny_processor.tokenizer.eos_token_id
    )


@pytest.mark.parametrize(
    "piece",
    [
        *TAGS,
        *VISION_TOKENS,
        "<|im_start|>",
        "<|im_end|>",
        "\n",
        *map(str, range(0, 1001, COORDINATE_STEP)),
    ],
)
def test_what_a_turn_is_made_of_is_one_token_each(tiny_processor, piece):
    assert len(tiny_processor.tokenizer.encode(piece, add_special_tokens=False)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d": [100, 7, 20, 999]}',
        "Tarn Oskel – naïve “quotes” 東京 🙂",
        "a\n\n  b\t<answer> x </answer>",
    ],
)
def test_any_text_comes_back_as_it_was(tiny_processor, text):
    tokenizer = tiny_processor.tokenizer
    assert (
        tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=True)
        == text
    )


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 128), (32, 32), (64, 112)])
def test_a_image_costs_one_token_for_each_square_of_16_px(tiny_processor, width, height):
    text = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
    encoded = tiny_processor(
        text=[text], images=[Image.new("RGB", (width, height))], return_tensors="pt"
    )
    image_id = tiny_processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert int((encoded["input_ids"] == image_id).sum()) == (width // PATCH_FACTOR_PX) * (
        height // PATCH_FACTOR_PX
    )


def test_images_reach_the_logits(model, tiny_processor):
    text = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|> a"
    last = []
    for color in ("red", "blue"):
        encoded = tiny_processor(
            text=[text], images=[Image.new("RGB", (64, 64), color)], return_tensors="pt"
        )
        with torch.no_grad():
            last.append(model(**encoded).logits[0, -1])
    assert (last[0] - last[1]).abs().max() > 1e-3


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    tokenizer = build_tokenizer(["a b c"], 400)
    size = TinySize(
        hidden=32,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=16,
        feed_forward=32,
        vision_hidden=32,
        vision_layers=2,
    )

    def weights(seed: int) -> torch.Tensor:
        return torch.cat([p.flatten() for p in build_model(tokenizer, size, seed).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_corpus_gives_the_same_tokenizer_again():
    texts = [
        "Tarn Oskel was born in Velmora, a harbour town.",
        "the emblem of Velmora is a kite",
        "1. (Title: Tarn) 2. (Title: Oskel)",
    ] * 3
    assert build_tokenizer(texts, 400).get_vocab() == build_tokenizer(texts, 400).get_vocab()


def test_the_default_model_has_1_3_million_parameters(model):
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 1.6e6


def test_the_folder_names_the_classes_that_stock_software_looks_up(tiny_folder):
    assert json.loads((tiny_folder / "config.json").read_text())["architectures"] == [
        "Qwen3VLForConditionalGeneration"
    ]
    assert (
        json.loads((tiny_folder / "preprocessor_config.json").read_text())["processor_class"]
        == "Qwen3VLProcessor"
    )


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="not a model folder") as raised:
        load_processor(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_broken_checkpoint_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(UsageError, match="cannot load its processor") as raised:
        load_processor(tmp_path)
    assert "\n" not in str(raised.value)
