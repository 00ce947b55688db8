"""The shape of a model, as far as the estimate of its memory needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the formulas need to know of a model.

    Attributes:
        patch_px: side of the square that one visual token covers.
        tied: the output head is the embedding.
    """

    num_params: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    patch_px: int
    tied: bool

    @property
    def layer_inputs_and_outputs(self) -> tuple[tuple[int, int], ...]:
        """Widths of the linear maps of one layer."""
        query, key, width = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.hidden
        attention = ((width, query), (width, key), (width, key), (query, width))
        return (
            *attention,
            (width, self.intermediate),
            (width, self.intermediate),
            (self.intermediate, width),
        )

    @property
    def layer_params(self) -> int:
        """Parameters of one layer, without its norms and biases."""
        return sum(i * o for i, o in self.layer_inputs_and_outputs)

    @property
    def embedding_params(self) -> int:
        """Parameters of the embedding and, if it has its own, of the head."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def adapter_params(self, rank: int) -> int:
        """Parameters of low-rank adapters on every linear map of the language model."""
        return self.layers * rank * sum(i + o for i, o in self.layer_inputs_and_outputs)


PUBLISHED: Mapping[str, ModelShape] = MappingProxyType(
    {
        "Qwen/Qwen3-VL-4B-Instruct": ModelShape(
            4_437_815_808, 2560, 36, 32, 8, 128, 9728, 151_936, 32, True
        ),
        "Qwen/Qwen3-VL-8B-Instruct": ModelShape(
            8_767_123_696, 4096, 36, 32, 8, 128, 12_288, 151_936, 32, False
        ),
        "Qwen/Qwen2.5-VL-7B-Instruct": ModelShape(
            8_292_166_656, 3584, 28, 28, 4, 128, 18_944, 152_064, 28, False
        ),
    }
)
"""From the models' public config.json, so that nothing has to be downloaded for an estimate."""


def model_shape(path: str) -> ModelShape | None:
    """Read the shape of a checkpoint folder, or look up a published model; None for a model of a
    hub that is not known here.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        return PUBLISHED.get(path)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text, vision = config.get("text_config", config), config.get("vision_config")
    files = sorted(folder.glob("*.safetensors"))
    if vision is None or not files:
        return None
    heads = text["num_attention_heads"]
    return ModelShape(
        num_params=sum(map(_count_params, files)),
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads", heads),
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        intermediate=text["intermediate_size"],
        vocab=text["vocab_size"],
        patch_px=vision["patch_size"] * vision["spatial_merge_size"],
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    )


def _count_params(path: Path) -> int:
    """Count the numbers in a safetensors file; its header is eight bytes of length and JSON."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        count = name != "__metadata__"
        for size in tensor["shape"] if count else ():
            count *= size
        total += count
    return total
