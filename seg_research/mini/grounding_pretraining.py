"""Teach image tokens of a tiny model what they show, before it learns to answer in words.

With a language-model loss alone this takes hours: an answer is six numbers, and nothing says which
token they come from. Here each token learns directly the words of the figure it lies on (as the
embeddings of these words), and the figure's box, through the value and output matrices of the
heads that `induction_init` has prepared for coordinates. No parameter is added to the model or
removed.

Axes: K labelled tokens; V vocabulary; D features.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from seg_research.core.seeding import derive_seed
from seg_research.mini.figures import Shape
from seg_research.mini.grid import COORDINATE_STEP, FRAME_PX, KEYFRAME_PX, PATCH_FACTOR_PX
from seg_research.mini.induction_init import POINTING_LAYER
from seg_research.mini.muon import MuonAdamW
from seg_research.mini.pretraining_data.scenes import draw_labelled, find_visible
from seg_research.mini.pretraining_data.training_example import SquareImage
from seg_research.mini.qwen3vl_cpu_forward import CpuForward
from seg_research.mini.sprites import Colour

NOTHING = "\n"
"""The word of a token of the background."""

_COVERED = 0.3
_BOX_LOSS, _LOUDNESS = 0.5, 20.0


@dataclass(frozen=True, slots=True)
class _Labels:
    """For each token of a batch of images: class of colour and shape (0: scenery), box edges as
    grid numbers, and how many figures.
    """

    colours: torch.Tensor
    shapes: torch.Tensor
    edges_K4: torch.Tensor


def pretrain_grounding(
    model: Any,
    tokenizer: Any,
    *,
    steps: int,
    seed: int,
    progress: Callable[[int, dict[str, float]], None],
    images_per_step: int = 24,
    compiled: bool = True,
) -> None:
    """Train in place; `progress` is told the number of finished steps and figures about the last
    one.
    """
    fast = CpuForward(model, compiled=compiled)
    optimizer = MuonAdamW(
        model,
        matrix_lr=0.015,
        other_lr=2e-3,
        schedule=lambda step: min(1.0, (step + 1) / 20, max(0.05, (steps - step) / (0.4 * steps))),
    )
    for step in range(steps):
        rng = random.Random(derive_seed(seed, "sight", step))
        loss, told = grounding_loss(model, tokenizer, fast, rng, images_per_step)
        loss.backward()
        optimizer.step()
        progress(step + 1, {"loss": float(loss.detach()), **told})


def grounding_loss(
    model: Any, tokenizer: Any, fast: CpuForward, rng: random.Random, count: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss on so many images of each size; and, of the last size, how many looks are
    right and how many edges nearly.
    """
    loss = torch.zeros(())
    told: dict[str, float] = {}
    for side_px in (KEYFRAME_PX, FRAME_PX):
        images, labels = _draw(rng, count, side_px)
        part, told = _loss(model, tokenizer, fast.encode(images), labels)
        loss = loss + part
    return loss, told


def _draw(rng: random.Random, count: int, side_px: int) -> tuple[NDArray[np.uint8], _Labels]:
    import cv2

    cells = side_px // PATCH_FACTOR_PX
    images: list[SquareImage] = []
    colours, shapes, edges = (
        np.zeros((count, cells, cells, *rest), np.int64) for rest in ((), (), (4,))
    )
    for row in range(count):
        image, labels_HW, looks = draw_labelled(rng, rng.choice([1, 2, 3, 4, 5, 6, 7]))
        if side_px != KEYFRAME_PX:
            image = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(
                np.uint8
            )
        images.append(image)
        most = np.full((cells, cells), _COVERED)
        for number, look in enumerate(looks, 1):
            own_HW = labels_HW == number
            figure = find_visible(own_HW, look)
            if figure is None:
                continue
            share = cv2.resize(
                own_HW.astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA
            )
            mine = share > most
            most[mine] = share[mine]
            colours[row][mine] = 1 + list(Colour).index(look.colour)
            shapes[row][mine] = 1 + list(Shape).index(look.shape)
            edges[row][mine] = np.round(np.array(figure.box) / COORDINATE_STEP)
    flat = [torch.from_numpy(a.reshape(-1, *a.shape[3:])) for a in (colours, shapes, edges)]
    return np.stack(images), _Labels(*flat)


def _loss(
    model: Any, tokenizer: Any, features: list[torch.Tensor], labels: _Labels
) -> tuple[torch.Tensor, dict[str, float]]:
    text = model.model.language_model
    embeddings_VD = text.embed_tokens.weight

    def words(values: list[str]) -> torch.Tensor:
        return embeddings_VD[
            torch.tensor(
                tokenizer.convert_tokens_to_ids([tokenizer.tokenize(value)[0] for value in values])
            )
        ]

    hidden_KD = torch.stack(features).sum(0)
    normed_KD = F.rms_norm(hidden_KD, hidden_KD.shape[-1:], eps=1e-6)
    of_colour = normed_KD @ words([NOTHING, *(f" {colour}" for colour in Colour)]).T
    of_shape = normed_KD @ words([NOTHING, *(f" {shape}" for shape in Shape)]).T
    total = F.cross_entropy(of_colour, labels.colours) + F.cross_entropy(of_shape, labels.shapes)
    figures = labels.colours > 0
    attention = text.layers[POINTING_LAYER].self_attn
    size, groups = attention.head_dim, attention.num_key_value_groups
    numbers = words([str(value) for value in range(0, 1001, COORDINATE_STEP)])
    hits = torch.zeros(())
    # The first key head serves left and right, the second top and bottom; box edges come as left,
    # top, right, bottom.
    for edge, (kv_head, query) in enumerate(((0, 0), (1, groups), (0, 1), (1, groups + 1))):
        value = (
            normed_KD[figures] @ attention.v_proj.weight[kv_head * size : (kv_head + 1) * size].T
        )
        said = value @ attention.o_proj.weight[:, query * size : (query + 1) * size].T
        logits = _LOUDNESS * said @ numbers.T
        target = labels.edges_K4[figures, edge]
        total = total + _BOX_LOSS * F.cross_entropy(logits, target)
        hits = hits + ((logits.argmax(-1) - target).abs() <= 1).float().mean() / 4
    right = ((of_colour.argmax(-1) == labels.colours) & (of_shape.argmax(-1) == labels.shapes))[
        figures
    ]
    return total, {"look": float(right.float().mean()), "edge": float(hits)}
