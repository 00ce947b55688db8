"""Pretrain a tiny model from nothing: each step takes one batch of every kind of example that takes
part, so that none is forgotten for another.

On one CPU core a step takes one to two seconds. A killed run continues from its last checkpoint,
with the same result.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seg_common.files import atomic_path
from seg_research.core.seeding import derive_seed
from seg_research.mini.expert_noise import IN_PRETRAINING
from seg_research.mini.grid import PATCH_FACTOR_PX
from seg_research.mini.grounding_pretraining import grounding_loss
from seg_research.mini.muon import MuonAdamW
from seg_research.mini.pretraining_data.clips import Clip
from seg_research.mini.pretraining_data.full_episodes import full_episode
from seg_research.mini.pretraining_data.grounding import (
    few_figures,
    frames_of_figures,
    many_figures,
)
from seg_research.mini.pretraining_data.passage_qa import passage_qa
from seg_research.mini.pretraining_data.training_example import (
    SplitRandom,
    SquareImage,
    TrainingExample,
)
from seg_research.mini.qwen3vl_cpu_forward import CpuForward, TokenBatch
from seg_research.policies.processor import IMAGE_TOKEN


class ExampleKind(StrEnum):
    """A kind of training example."""

    PASSAGE_QA = "passage_qa"
    FEW_FIGURES = "few_figures"
    MANY_FIGURES = "many_figures"
    FRAMES = "frames"
    EPISODES = "episodes"
    WITH_MISTAKES = "with_mistakes"
    """Episodes whose expert makes mistakes."""


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Size of a batch: sequences, and tokens of each (longer examples lose their end, shorter ones
    are padded).
    """

    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of the curriculum.

    Attributes:
        until: step at which it ends; None for the last.
        shares: how likely each kind takes part in a step; a kind alone gets twice the sequences.
    """

    until: int | None
    shares: Mapping[ExampleKind, float]


BATCH_SHAPES: Mapping[ExampleKind, BatchShape] = {
    ExampleKind.PASSAGE_QA: BatchShape(6, 192),
    ExampleKind.FEW_FIGURES: BatchShape(12, 128),
    ExampleKind.MANY_FIGURES: BatchShape(8, 272),
    ExampleKind.FRAMES: BatchShape(6, 256),
    ExampleKind.EPISODES: BatchShape(6, 464),
    ExampleKind.WITH_MISTAKES: BatchShape(6, 552),
}
_ABILITIES = {
    ExampleKind.PASSAGE_QA: 0.6,
    ExampleKind.FEW_FIGURES: 0.2,
    ExampleKind.MANY_FIGURES: 0.6,
    ExampleKind.FRAMES: 0.4,
}
CURRICULUM: Sequence[Phase] = (
    Phase(35, {ExampleKind.PASSAGE_QA: 1.0}),
    Phase(
        280,
        {
            ExampleKind.PASSAGE_QA: 1.0,
            ExampleKind.FEW_FIGURES: 0.5,
            ExampleKind.MANY_FIGURES: 1.0,
            ExampleKind.FRAMES: 0.4,
        },
    ),
    Phase(900, {**_ABILITIES, ExampleKind.EPISODES: 1.0}),
    Phase(None, {**_ABILITIES, ExampleKind.WITH_MISTAKES: 1.0}),
)


@dataclass(frozen=True, slots=True)
class PretrainingSettings:
    """How long and how fast; the learning rate falls to nothing over the last `decay_steps`."""

    steps: int = 1300
    seed: int = 0
    matrix_lr: float = 0.008
    other_lr: float = 2e-3
    warmup_steps: int = 30
    decay_steps: int = 400
    save_every: int = 100
    grounding_weight: float = 0.3
    grounding_images: int = 12
    compiled: bool = True
    curriculum: Sequence[Phase] = CURRICULUM

    def rate(self, step: int) -> float:
        """Return the factor of the learning rates at a step."""
        return min(
            1.0, (step + 1) / self.warmup_steps, max(0.02, (self.steps - step) / self.decay_steps)
        )

    def phase(self, step: int) -> Phase:
        """Return the phase that a step belongs to."""
        return next(
            (phase for phase in self.curriculum if phase.until is None or step < phase.until),
            self.curriculum[-1],
        )


@dataclass(slots=True)
class ExampleEncoder:
    """Turns examples into batches; pieces of text are encoded one by one and remembered."""

    tokenizer: Any
    _known: dict[str, list[int]] = field(default_factory=dict)

    def tokens(self, example: TrainingExample) -> tuple[list[int], list[float]]:
        """Return ids and the weight of each."""
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in example.pieces:
            known = self._known.get(text)
            if known is None:
                known = self.tokenizer.encode(text, add_special_tokens=False)
                if len(self._known) < 200_000:
                    self._known[text] = known
            ids += known
            weights += [weight] * len(known)
        return ids, weights

    def batch(self, examples: Sequence[TrainingExample], length: int) -> TokenBatch:
        """Pad or cut to a length; an image is never cut, since images come early."""
        image_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        ids_BL = torch.full((len(examples), length), self.tokenizer.pad_token_id)
        weights_BL = torch.zeros(len(examples), length)
        positions_3BL = torch.zeros(3, len(examples), length, dtype=torch.long)
        images: dict[int, list[SquareImage]] = {}
        sides: list[int] = []
        for row, example in enumerate(examples):
            ids, weights = self.tokens(example)
            own_sides = [image.shape[0] for image in example.images]
            positions_3L = positions(ids, image_id, [side // PATCH_FACTOR_PX for side in own_sides])
            count = min(length, len(ids))
            ids_BL[row, :count] = torch.tensor(ids[:count])
            weights_BL[row, :count] = torch.tensor(weights[:count])
            positions_3BL[:, row, :count] = torch.from_numpy(positions_3L[:, :count])
            sides += own_sides
            for image in example.images:
                images.setdefault(image.shape[0], []).append(image)
        next_ids, next_weights = torch.roll(ids_BL, -1, 1), torch.roll(weights_BL, -1, 1)
        next_weights[:, -1] = 0
        chosen = next_weights.flatten().nonzero()[:, 0]
        stacked = {side: np.stack(group) for side, group in images.items()}
        return TokenBatch(
            ids_BL,
            positions_3BL,
            stacked,
            sides,
            chosen,
            next_ids.flatten()[chosen],
            next_weights.flatten()[chosen],
        )


def positions(
    ids: Sequence[int], image_id: int, sides: Sequence[int]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count time, row and column as Qwen-VL does, (3, L); `sides` are those of the images in
    tokens.
    """
    result = np.zeros((3, len(ids)), np.int64)
    remaining = iter(sides)
    place = now = 0
    while place < len(ids):
        if ids[place] == image_id:
            side = next(remaining)
            cells = np.arange(side * side)
            result[:, place : place + side * side] = now + np.stack(
                [np.zeros_like(cells), cells // side, cells % side]
            )
            place, now = place + side * side, now + side
        else:
            result[:, place] = now
            place, now = place + 1, now + 1
    return result


def draw_example(kind: ExampleKind, rng: SplitRandom, clips: Sequence[Clip]) -> TrainingExample:
    """Draw an example of a kind."""
    match kind:
        case ExampleKind.PASSAGE_QA:
            return passage_qa(rng, 4 * BATCH_SHAPES[kind].tokens)
        case ExampleKind.FEW_FIGURES:
            return few_figures(rng)
        case ExampleKind.MANY_FIGURES:
            return many_figures(rng, clips)
        case ExampleKind.FRAMES:
            return frames_of_figures(rng, clips)
        case ExampleKind.EPISODES:
            return full_episode(rng, clips)
        case ExampleKind.WITH_MISTAKES:
            return full_episode(rng, clips, IN_PRETRAINING)


def pretrain(
    model: Any,
    tokenizer: Any,
    clips: Sequence[Clip],
    settings: PretrainingSettings,
    store: Path,
    progress: Callable[[int, dict[str, float]], None],
) -> None:
    """Train in place; `progress` is told the number of finished steps and the latest loss of each
    kind.
    """
    optimizer = MuonAdamW(
        model, matrix_lr=settings.matrix_lr, other_lr=settings.other_lr, schedule=settings.rate
    )
    fast, encoder = CpuForward(model, compiled=settings.compiled), ExampleEncoder(tokenizer)
    losses: dict[str, float] = {}
    first = _restore(store, model, optimizer)
    for step in range(first, settings.steps):
        rng = SplitRandom(derive_seed(settings.seed, "lessons", step))
        taken = [
            kind for kind, share in settings.phase(step).shares.items() if rng.random() < share
        ]
        for kind in taken:
            shape = BATCH_SHAPES[kind]
            count = shape.sequences * (2 if len(taken) == 1 else 1)
            batch = encoder.batch(
                [draw_example(kind, rng, clips) for _ in range(count)], shape.tokens
            )
            loss, _ = fast.loss(batch)
            loss.backward()
            losses[kind] = float(loss.detach())
        # Without this loss at every step the image encoder forgets within a hundred steps what
        # image tokens have to mean.
        grounding, _ = grounding_loss(model, tokenizer, fast, rng, settings.grounding_images)
        (settings.grounding_weight * grounding).backward()
        losses["grounding"] = float(grounding.detach())
        optimizer.step()
        progress(step + 1, losses)
        if (step + 1) % settings.save_every == 0:
            _keep(store, model, optimizer, step + 1)


def _keep(store: Path, model: Any, optimizer: MuonAdamW, step: int) -> None:
    with atomic_path(store) as temporary:
        torch.save(
            {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()},
            temporary,
        )


def _restore(store: Path, model: Any, optimizer: MuonAdamW) -> int:
    if not store.is_file():
        return 0
    kept = torch.load(store, weights_only=True)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["step"])
