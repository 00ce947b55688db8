"""A tiny Qwen3-VL from scratch: the real architecture, processor and chat format at a size that
trains on a laptop.

Images: patches of 8 px, merged 2 × 2, so one token covers 16 × 16 px and image sides are
multiples of 16.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from seg_common.files import write_atomic
from seg_research.mini.grid import COORDINATE_STEP, PATCH_FACTOR_PX
from seg_research.policies.processor import VISION_TOKENS

COMMON_FRAME_IDS = 106
"""Frame numbers below this, all that the mini benchmark has, are one token each as well."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *VISION_TOKENS)
_TAGS = tuple(
    tag
    for name in ("thinking", "search", "information", "keyframe", "answer")
    for tag in (f"<{name}>", f"</{name}>")
)
# Words keep their leading space, numbers stay whole and bare, punctuation comes in runs: a name or
# a number is the same tokens everywhere.
_PIECES = r" ?[A-Za-z_][A-Za-z_0-9]*|\d+|(?: ?[^\sA-Za-z\d])+(?: (?=\d))?|\s+"


@dataclass(frozen=True, slots=True)
class TinySize:
    """Widths and depths; the defaults give about 1.3 M parameters, `COLD_START` 2.3 M."""

    vocab: int = 640
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    feed_forward: int = 384
    vision_hidden: int = 96
    vision_layers: int = 2
    rope_theta: float = 10_000.0


COLD_START = TinySize(
    vocab=1024,
    hidden=192,
    head_dim=48,
    feed_forward=384,
    vision_hidden=96,
    vision_layers=3,
    rope_theta=1_000_000.0,
)
"""The size of the model that `examples/train/mini` starts from: as much as an hour of one CPU core
can train.
"""


def build_tokenizer(corpus: Iterable[str], vocab: int) -> Any:
    """Train a byte-level BPE on a corpus; tags and numbers of the coordinate grid are one token
    each.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    grid = range(0, 1001, COORDINATE_STEP)
    numbers = [" ".join(f"[{i}, {i}" for i in (*grid, *range(COMMON_FRAME_IDS)))] * 64
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(_TAGS),
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_without_tags(text) for text in [*corpus, *numbers]), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    template = (
        resources.files("seg_research.mini").joinpath("chatml.jinja").read_text(encoding="utf-8")
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(_SPECIAL[1:]),
        chat_template=template,
    )


def _without_tags(text: str) -> str:
    for tag in (*_SPECIAL, *_TAGS):
        text = text.replace(tag, " ")
    return text


def build_model(tokenizer: Any, size: TinySize, seed: int) -> Any:
    """Initialise a Qwen3-VL whose vocabulary is exactly the tokenizer's (verl masks surplus rows
    and shifts log-probabilities).
    """
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    ends = {"eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>")}
    # M-RoPE splits the half head into time, height and width.
    half = size.head_dim // 2
    sections = [half - 2 * (half // 3), half // 3, half // 3]
    rope = {
        "rope_type": "default",
        "rope_theta": size.rope_theta,
        "mrope_section": sections,
        "mrope_interleaved": True,
    }
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden,
            "intermediate_size": size.feed_forward,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "head_dim": size.head_dim,
            "max_position_embeddings": 8192,
            "initializer_range": 0.04,
            "tie_word_embeddings": True,
            "rope_parameters": rope,
            **ends,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 3 * size.vision_hidden,
            "num_heads": 4,
            "out_hidden_size": size.hidden,
            "patch_size": PATCH_FACTOR_PX // 2,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.04,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        **ends,
    )
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config).float()
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.generation_config.pad_token_id = ends["pad_token_id"]
    return model


def save_tiny(model: Any, tokenizer: Any, out: Path) -> None:
    """Write model, tokenizer and processor files as any Qwen3-VL checkpoint folder holds them."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    common = {
        "processor_class": "Qwen3VLProcessor",
        "patch_size": PATCH_FACTOR_PX // 2,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    look = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
    }
    pixels = {"shortest_edge": PATCH_FACTOR_PX**2, "longest_edge": 1024**2}
    still = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": pixels,
        "do_resize": True,
        "do_convert_rgb": True,
        "resample": 3,
    }
    moving = {"video_processor_type": "Qwen3VLVideoProcessor", "size": pixels, "fps": 2}
    write_atomic(
        out / "preprocessor_config.json", json.dumps({**common, **look, **still}, indent=1)
    )
    write_atomic(
        out / "video_preprocessor_config.json", json.dumps({**common, **look, **moving}, indent=1)
    )
    # The weights come last: a folder with config.json and weights is complete.
    model.save_pretrained(out)
