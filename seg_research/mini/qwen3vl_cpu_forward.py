"""The forward pass of a small Qwen3-VL, written for CPU training: the same weights and the same
numbers, in a third of the time.

transformers runs a CPU model through many small operations (attention image by image, convolutions
over patches, masks, norms in four steps). Here every image of a batch has one of a few square
sizes and is batched with its like, sequences are padded on the right so that plain causal attention
needs no mask, and each layer is compiled. A test compares the result with that of transformers.

Axes: B sequences; L tokens; N images; P patches of one image; D features.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers.vision_utils import (
    get_vision_bilinear_indices_and_weights,
    get_vision_position_ids,
)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """What a training step reads.

    Attributes:
        ids_BL: tokens, padded on the right; an image is a run of placeholders.
        positions_3BL: time, row and column of every token, as Qwen-VL counts them.
        images: for each side in pixels, the images of that side (N, H, W, 3) uint8, in order of
            appearance.
        sides: side in pixels of every image, in order of appearance.
        chosen: flat indices (b * L + l) of the tokens whose successor carries loss.
        targets: that successor.
        weights: of the loss.
    """

    ids_BL: torch.Tensor
    positions_3BL: torch.Tensor
    images: Mapping[int, NDArray[np.uint8]]
    sides: Sequence[int]
    chosen: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


class CpuForward:
    """Runs a transformers model's weights through the code below."""

    def __init__(self, model: Any, *, compiled: bool = True) -> None:
        """Wrap a `Qwen3VLForConditionalGeneration`; nothing is copied."""
        self._model = model
        self._text, self._vision = model.model.language_model, model.model.visual
        config = self._text.config
        self._image_id = model.config.image_token_id
        self._sections = config.rope_parameters["mrope_section"]
        self._vision_layer = torch.compile(_vision_layer) if compiled else _vision_layer
        self._text_layer = torch.compile(_text_layer) if compiled else _text_layer

    def logits(self, batch: TokenBatch) -> torch.Tensor:
        """Return the logits (len(batch.chosen), V)."""
        hidden_BLD = self._text.embed_tokens(batch.ids_BL)
        features = self._look(batch)
        where = (batch.ids_BL == self._image_id).unsqueeze(-1)
        if features:
            hidden_BLD = hidden_BLD.masked_scatter(where, features[0])
        cos, sin = self._rotation(batch.positions_3BL)
        for index, layer in enumerate(self._text.layers):
            hidden_BLD = self._text_layer(layer, hidden_BLD, cos, sin)
            if index + 1 < len(features):
                hidden_BLD = hidden_BLD + torch.zeros_like(hidden_BLD).masked_scatter(
                    where, features[index + 1]
                )
        chosen_KD = hidden_BLD.flatten(0, 1)[batch.chosen]
        return self._model.lm_head(_rms(chosen_KD, self._text.norm))

    def loss(self, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted mean loss, and whether each target has the highest logit."""
        logits_KV = self.logits(batch)
        losses_K = F.cross_entropy(logits_KV, batch.targets, reduction="none")
        return (losses_K * batch.weights).sum() / batch.weights.sum(), logits_KV.detach().argmax(
            -1
        ) == batch.targets

    def _rotation(self, positions_3BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles_3BLF = positions_3BL.unsqueeze(-1).float() * self._text.rotary_emb.inv_freq
        mixed_BLF = angles_3BLF[0].clone()
        for axis in (1, 2):
            index = slice(axis, self._sections[axis] * 3, 3)
            mixed_BLF[..., index] = angles_3BLF[axis][..., index]
        twice = torch.cat((mixed_BLF, mixed_BLF), -1).unsqueeze(1)
        return twice.cos(), twice.sin()

    def _look(self, batch: TokenBatch) -> list[torch.Tensor]:
        """Return the features of all image tokens in order of appearance: of the last layer, then
        those mixed in deeper.
        """
        if not batch.sides:
            return []
        by_side = {side: self.encode(images) for side, images in batch.images.items()}
        tokens = torch.tensor([self._tokens_of(side) for side in batch.sides])
        side_of_token = torch.repeat_interleave(torch.tensor(batch.sides), tokens)
        merged: list[torch.Tensor] = []
        for level in range(len(next(iter(by_side.values())))):
            out = torch.empty(len(side_of_token), self._text.config.hidden_size)
            for side, levels in by_side.items():
                out = out.masked_scatter((side_of_token == side).unsqueeze(-1), levels[level])
            merged.append(out)
        return merged

    def _tokens_of(self, side_px: int) -> int:
        return (side_px // self._vision.patch_size // self._vision.spatial_merge_size) ** 2

    def encode(self, images_NHWC: NDArray[np.uint8]) -> list[torch.Tensor]:
        """Return the features of the tokens of square images, (N * tokens, D): of the last layer,
        then those mixed in deeper.
        """
        vision = self._vision
        grid = images_NHWC.shape[1] // vision.patch_size
        patches_NPD = patches_of(images_NHWC, vision.patch_size, vision.spatial_merge_size)
        # Both time slots of a patch hold the same still image.
        weight = vision.patch_embed.proj.weight.sum(2).flatten(1)
        indices, bilinear = _interpolation(
            grid, vision.num_grid_per_side, vision.spatial_merge_size
        )
        hidden_NPD = F.linear(patches_NPD, weight, vision.patch_embed.proj.bias)
        hidden_NPD = hidden_NPD + (vision.pos_embed(indices) * bilinear.unsqueeze(-1)).sum(0)
        angles = vision.rotary_pos_emb(_places(grid, vision.spatial_merge_size)).flatten(1)
        twice = torch.cat((angles, angles), -1)
        cos, sin = twice.cos(), twice.sin()
        deeper: list[torch.Tensor] = []
        for index, block in enumerate(vision.blocks):
            hidden_NPD = self._vision_layer(block, hidden_NPD, cos, sin)
            if index in vision.deepstack_visual_indexes:
                deeper.append(vision.deepstack_merger_list[len(deeper)](hidden_NPD.flatten(0, 1)))
        return [vision.merger(hidden_NPD.flatten(0, 1)), *deeper]


def patches_of(images_NHWC: NDArray[np.uint8], patch_px: int, merge: int) -> torch.Tensor:
    """Cut square images into patches (N, P, 3 * patch_px²) of values in -1..1, in the order in
    which Qwen-VL merges them.
    """
    count, side = images_NHWC.shape[0], images_NHWC.shape[1] // patch_px // merge
    values = torch.from_numpy(np.ascontiguousarray(images_NHWC)).float().div_(127.5).sub_(1)
    split = values.view(count, side, merge, patch_px, side, merge, patch_px, 3)
    return split.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(
        count, (side * merge) ** 2, 3 * patch_px**2
    )


@cache
def _interpolation(grid: int, table_side: int, merge: int) -> tuple[torch.Tensor, torch.Tensor]:
    return get_vision_bilinear_indices_and_weights(
        torch.tensor([[1, grid, grid]]), num_grid_per_side=table_side, spatial_merge_size=merge
    )


@cache
def _places(grid: int, merge: int) -> torch.Tensor:
    return get_vision_position_ids(torch.tensor([[1, grid, grid]]), merge)


def _rms(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def _text_layer(
    layer: Any, x_BLD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    attention = layer.self_attn
    batch, length, _ = x_BLD.shape
    split = (batch, length, -1, attention.head_dim)
    normed = _rms(x_BLD, layer.input_layernorm)
    q = _rotated(
        _rms(attention.q_proj(normed).view(split), attention.q_norm).transpose(1, 2), cos, sin
    )
    k = _rotated(
        _rms(attention.k_proj(normed).view(split), attention.k_norm).transpose(1, 2), cos, sin
    )
    v = attention.v_proj(normed).view(split).transpose(1, 2)
    groups = attention.num_key_value_groups
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x_BLD = x_BLD + attention.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
    normed = _rms(x_BLD, layer.post_attention_layernorm)
    return x_BLD + layer.mlp.down_proj(
        F.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
    )


def _vision_layer(
    block: Any, x_NPD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    count, patches, _ = x_NPD.shape
    qkv = (
        block.attn.qkv(block.norm1(x_NPD))
        .view(count, patches, 3, block.attn.num_heads, -1)
        .permute(2, 0, 3, 1, 4)
    )
    q, k, v = _rotated(qkv[0], cos, sin), _rotated(qkv[1], cos, sin), qkv[2]
    mixed = F.scaled_dot_product_attention(q, k, v)
    x_NPD = x_NPD + block.attn.proj(mixed.transpose(1, 2).reshape(count, patches, -1))
    return x_NPD + block.mlp(block.norm2(x_NPD))
