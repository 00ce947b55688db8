"""Initial weights of a tiny model: an induction circuit, and embeddings in which neighbouring
numbers and places are alike.

A model of a few million parameters that is trained from nothing for an hour of one CPU core does
not find out how to look up a name among passages; it stays at picking one passage at random
(docs/mini.md has the numbers). What it lacks is known: an *induction circuit* (Olsson et al. 2022),
heads of one layer that carry each token's predecessors along, and heads of the next that look for
places whose predecessors are the tokens just said. It is written into the first two layers here;
everything stays trainable. Likewise tokens of neighbouring coordinates, and neighbouring places of
an image, start out alike.

Axes: V vocabulary; D features of a token; K features of a head.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import Any

import torch

from seg_research.mini.grid import COORDINATE_STEP

_CONSTANT_DIMS, _CONSTANT = 4, 0.2
"""These features are the same for every token, so that heads can look by distance alone."""

_DISTANCE_WEIGHTS = (0.6, 0.45, 0.35, 0.2, 0.1)
"""How much each of the fastest rotations counts for a head that looks a fixed distance back."""

_SLOWEST_SHARE = 0.012
"""Rotations below this angle a token hardly change what is compared within a few hundred tokens."""

_SHARPNESS, _CARRIED, _SAID, _QUIET, _NOISE = 1.6, 0.08, 0.15, 0.1, 0.01
_STRAIGHT, _PLACE, _FAINT, _POINTED = 3.0, 0.12, 0.15, 0.12
POINTING_LAYER = 2
"""Its heads say where they look: left, right, top and bottom of what they see there."""

_FREQUENCIES = (0.25, 0.5, 1.0, 2.0, 4.0)


def write_induction_circuit(model: Any, tokenizer: Any, seed: int) -> None:
    """Overwrite parts of a freshly initialised Qwen3-VL whose text part has two key heads or more;
    equal seeds give equal weights.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        code, own = _write_circuit(model.model.language_model, draw)
        spread = _align_neighbours(model, tokenizer, draw)
        places = _carry_places(model.model.visual, model.config.text_config.hidden_size, draw)
        _point(model.model.language_model.layers[POINTING_LAYER].self_attn, places, spread)
        _match(model.model.language_model.layers[POINTING_LAYER].self_attn, code, own)


def _write_circuit(text: Any, draw: torch.Generator) -> tuple[list[int], torch.Tensor]:
    """Write the circuit; return the features of a head that turn slowly, and what tells tokens
    apart there, (len, D).
    """
    for layer in text.layers:
        layer.self_attn.o_proj.weight.mul_(_QUIET)
        layer.mlp.down_proj.weight.mul_(_QUIET)
    embeddings_VD = text.embed_tokens.weight
    embeddings_VD[:, :_CONSTANT_DIMS] = _CONSTANT
    width = embeddings_VD.shape[1]
    carrying, finding = text.layers[0].self_attn, text.layers[1].self_attn
    half = carrying.head_dim // 2
    slow = [
        i for i, angle in enumerate(text.rotary_emb.inv_freq.tolist()) if angle < _SLOWEST_SHARE
    ]
    code = [*slow, *(i + half for i in slow)]
    free = width - _CONSTANT_DIMS
    basis = torch.linalg.qr(torch.randn(free, free, generator=draw))[0]
    rows_DD = torch.cat((torch.zeros(free, _CONSTANT_DIMS), basis), 1)
    own, one_back, two_back = (rows_DD[i * len(code) : (i + 1) * len(code)] for i in range(3))
    for kv_head, (distance, kept) in enumerate(((1, one_back), (2, two_back))):
        _look_back(carrying, kv_head, distance, text.rotary_emb.inv_freq, own, kept, draw)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    # The first finds what followed this token, the second what followed this token and the one
    # before it.
    _find(finding, 0, code, own, one_back, rows_DD[-finding.head_dim :], draw)
    wanted, kept = own.clone(), one_back.clone()
    wanted[odd], kept[odd] = one_back[odd], two_back[odd]
    wanted[even], kept[even] = own[even], one_back[even]
    _find(finding, 1, code, wanted, kept, rows_DD[-finding.head_dim :], draw)
    for attention in (carrying, finding):
        attention.q_norm.weight.fill_(_SHARPNESS)
        attention.k_norm.weight.fill_(_SHARPNESS)
    return code, own


def _slices(attention: Any, kv_head: int) -> tuple[slice, slice]:
    """Return the rows of a key head and of the first query head that uses it."""
    size, query = attention.head_dim, kv_head * attention.num_key_value_groups
    return slice(kv_head * size, (kv_head + 1) * size), slice(query * size, (query + 1) * size)


def _noise(rows: int, columns: int, draw: torch.Generator) -> torch.Tensor:
    return _NOISE * torch.randn(rows, columns, generator=draw)


def _look_back(
    attention: Any,
    kv_head: int,
    distance: int,
    angles: torch.Tensor,
    own: torch.Tensor,
    kept: torch.Tensor,
    draw: torch.Generator,
) -> None:
    """Let a head attend to the token a fixed distance back, and write what that token is into
    features of its own.
    """
    size, width = attention.head_dim, attention.q_proj.weight.shape[1]
    key, query = torch.zeros(size), torch.zeros(size)
    for i, weight in enumerate(_DISTANCE_WEIGHTS):
        turn = float(angles[i]) * distance
        key[i] = math.sqrt(weight)
        query[i], query[i + size // 2] = (
            math.sqrt(weight) * math.cos(turn),
            -math.sqrt(weight) * math.sin(turn),
        )
    # After the norm a constant feature is about 20 times what it is before.
    constant = torch.zeros(width)
    constant[:_CONSTANT_DIMS] = 1 / (_CONSTANT_DIMS * 20 * _CONSTANT)
    of_key, of_query = _slices(attention, kv_head)
    attention.k_proj.weight[of_key] = torch.outer(key, constant) + _noise(size, width, draw)
    attention.q_proj.weight[of_query] = torch.outer(query, constant) + _noise(size, width, draw)
    attention.v_proj.weight[of_key] = 0
    attention.v_proj.weight[of_key][: len(own)] = own
    attention.o_proj.weight[:, of_query] = 0
    attention.o_proj.weight[:, of_query][:, : len(kept)] = _CARRIED * kept.T


def _find(
    attention: Any,
    kv_head: int,
    code: list[int],
    wanted: torch.Tensor,
    kept: torch.Tensor,
    said: torch.Tensor,
    draw: torch.Generator,
) -> None:
    """Let a head attend to tokens whose kept predecessors are what is wanted now, and say those
    tokens.
    """
    size, width = attention.head_dim, attention.q_proj.weight.shape[1]
    of_key, of_query = _slices(attention, kv_head)
    attention.q_proj.weight[of_query] = _noise(size, width, draw)
    attention.k_proj.weight[of_key] = _noise(size, width, draw)
    attention.q_proj.weight[of_query][code] += wanted
    attention.k_proj.weight[of_key][code] += kept
    attention.v_proj.weight[of_key] = said
    attention.o_proj.weight[:, of_query] = _SAID * said.T


def _align_neighbours(model: Any, tokenizer: Any, draw: torch.Generator) -> torch.Tensor:
    """Put the numbers of the grid on a curve; return how its points become embeddings, (curve,
    D).
    """
    embeddings_VD = model.model.language_model.embed_tokens.weight
    grid = range(0, 1001, COORDINATE_STEP)
    ids = torch.tensor(tokenizer.convert_tokens_to_ids([str(value) for value in grid]))
    curve = _curve(torch.tensor(list(grid)) / 1000)
    width = embeddings_VD.shape[1] - _CONSTANT_DIMS
    spread = torch.randn(curve.shape[1], width, generator=draw) * (
        0.04 / (curve.shape[1] / 2) ** 0.5
    )
    embeddings_VD[ids, _CONSTANT_DIMS:] = 0.6 * embeddings_VD[ids, _CONSTANT_DIMS:] + 0.8 * (
        curve @ spread
    )
    return spread


def _carry_places(vision: Any, width: int, draw: torch.Generator) -> torch.Tensor:
    """Keep some features of every patch for where it is, down to the image token; return their
    directions there, (D', 2 * curve).
    """
    side, table = vision.num_grid_per_side, vision.pos_embed.weight
    curve = _curve((torch.arange(side) + 0.5) / side)
    each = curve.shape[1]
    places = torch.cat(
        (curve[:, None].expand(side, side, each), curve[None].expand(side, side, each)), -1
    ).reshape(side * side, 2 * each)
    kept = slice(0, 2 * each)
    table.mul_(0.5)
    table[:, kept] = places
    vision.patch_embed.proj.weight[kept] = 0
    vision.patch_embed.proj.bias[kept] = 0
    for block in vision.blocks:
        for linear in (block.attn.proj, block.mlp.linear_fc2):
            linear.weight[kept] = 0
            linear.bias[kept] = 0
    into, out = vision.merger.linear_fc1, vision.merger.linear_fc2
    merged = into.in_features // table.shape[1]
    into.weight[kept] = 0
    for patch in range(merged):
        into.weight[kept, patch * table.shape[1] : patch * table.shape[1] + 2 * each] = (
            torch.eye(2 * each) / merged
        )
    # Far to the right of its bend the activation is a straight line.
    into.bias[kept] = _STRAIGHT
    directions = torch.linalg.qr(torch.randn(width - _CONSTANT_DIMS, 2 * each, generator=draw))[0]
    for merger in (vision.merger, *vision.deepstack_merger_list):
        merger.linear_fc2.weight.mul_(_FAINT)
    out.weight[:, kept] = 0
    out.weight[_CONSTANT_DIMS:, kept] = _PLACE * directions
    out.bias.copy_(-out.weight[:, kept].sum(1) * _STRAIGHT)
    out.bias[:_CONSTANT_DIMS] = _CONSTANT
    return directions


def _point(attention: Any, places: torch.Tensor, spread: torch.Tensor) -> None:
    """Let four heads say where they look, two across and two down; where to look, and which of them
    is asked for, is to be learnt.
    """
    each = len(spread)
    unit = spread / spread.norm(dim=1, keepdim=True)
    for kv_head, codes in ((0, places[:, each:]), (1, places[:, :each])):
        of_key, of_query = _slices(attention, kv_head)
        attention.v_proj.weight[of_key] = 0
        attention.v_proj.weight[of_key][:each, _CONSTANT_DIMS:] = codes.T
        for query in range(2):
            of_this = slice(
                of_query.start + query * attention.head_dim,
                of_query.stop + query * attention.head_dim,
            )
            attention.o_proj.weight[:, of_this] = 0
            attention.o_proj.weight[_CONSTANT_DIMS:, of_this][:, :each] = _POINTED * unit.T


def _match(attention: Any, code: list[int], own: torch.Tensor) -> None:
    """Let all heads attend to what is alike: an image token that shows a figure is to resemble the
    words for it.
    """
    for linear in (attention.q_proj, attention.k_proj):
        for head in range(linear.weight.shape[0] // attention.head_dim):
            linear.weight[head * attention.head_dim :][code] += own


def _curve(values: torch.Tensor) -> torch.Tensor:
    """Place numbers in 0..1 on a smooth curve, (N, 10)."""
    angles = 2 * math.pi * values[:, None] * torch.tensor(_FREQUENCIES)
    return torch.cat((angles.sin(), angles.cos()), 1)
