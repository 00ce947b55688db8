"""Teach a tiny model from nothing: each step takes one batch of every lesson that is on, so that
none is forgotten for another.

On one CPU core a step takes one to two seconds. The loop can be killed: it goes on from its last
checkpoint, with the same result.
"""

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
from seg_research.mini.expert_noise import IN_LESSONS
from seg_research.mini.grid import PATCH_FACTOR_PX
from seg_research.mini.grounding_pretraining import sight_loss
from seg_research.mini.muon import MuonAdamW
from seg_research.mini.pretraining_data.clips import Clip
from seg_research.mini.pretraining_data.full_episodes import episode
from seg_research.mini.pretraining_data.grounding import (
    few_figures,
    frames_of_figures,
    many_figures,
)
from seg_research.mini.pretraining_data.lesson import Draw, Lesson, Picture
from seg_research.mini.pretraining_data.passage_qa import reading
from seg_research.mini.qwen3vl_cpu_forward import Batch, FastForward
from seg_research.policies.processor import IMAGE_TOKEN


class Subject(StrEnum):
    """A kind of lesson."""

    READING = "reading"
    FEW_FIGURES = "few_figures"
    MANY_FIGURES = "many_figures"
    FRAMES = "frames"
    EPISODES = "episodes"
    STRAYING = "straying"
    """Episodes whose expert goes astray."""


@dataclass(frozen=True, slots=True)
class Format:
    """Size of a batch: sequences, and tokens of each (longer lessons lose their end, shorter ones
    are padded).
    """

    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of the curriculum.

    Attributes:
        until: step at which it ends; None for the last.
        lessons: how likely each subject takes part in a step; a subject alone gets twice the
            sequences.
    """

    until: int | None
    lessons: Mapping[Subject, float]


FORMATS: Mapping[Subject, Format] = {
    Subject.READING: Format(6, 192),
    Subject.FEW_FIGURES: Format(12, 128),
    Subject.MANY_FIGURES: Format(8, 272),
    Subject.FRAMES: Format(6, 256),
    Subject.EPISODES: Format(6, 464),
    Subject.STRAYING: Format(6, 552),
}
_ABILITIES = {
    Subject.READING: 0.6,
    Subject.FEW_FIGURES: 0.2,
    Subject.MANY_FIGURES: 0.6,
    Subject.FRAMES: 0.4,
}
CURRICULUM: Sequence[Phase] = (
    Phase(35, {Subject.READING: 1.0}),
    Phase(
        280,
        {
            Subject.READING: 1.0,
            Subject.FEW_FIGURES: 0.5,
            Subject.MANY_FIGURES: 1.0,
            Subject.FRAMES: 0.4,
        },
    ),
    Phase(900, {**_ABILITIES, Subject.EPISODES: 1.0}),
    Phase(None, {**_ABILITIES, Subject.STRAYING: 1.0}),
)


@dataclass(frozen=True, slots=True)
class TeachSettings:
    """How long and how fast; the learning rate falls to nothing over the last `decay_steps`."""

    steps: int = 1300
    seed: int = 0
    matrix_lr: float = 0.008
    other_lr: float = 2e-3
    warmup_steps: int = 30
    decay_steps: int = 400
    save_every: int = 100
    sight_weight: float = 0.3
    sight_pictures: int = 12
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
class Encoder:
    """Turns lessons into batches; pieces of text are encoded one by one and remembered."""

    tokenizer: Any
    _known: dict[str, list[int]] = field(default_factory=dict)

    def tokens(self, lesson: Lesson) -> tuple[list[int], list[float]]:
        """Return ids and the weight of each."""
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in lesson.pieces:
            known = self._known.get(text)
            if known is None:
                known = self.tokenizer.encode(text, add_special_tokens=False)
                if len(self._known) < 200_000:
                    self._known[text] = known
            ids += known
            weights += [weight] * len(known)
        return ids, weights

    def batch(self, lessons: Sequence[Lesson], length: int) -> Batch:
        """Pad or cut to a length; a picture is never cut, since pictures come early."""
        image_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        ids_BL = torch.full((len(lessons), length), self.tokenizer.pad_token_id)
        weights_BL = torch.zeros(len(lessons), length)
        positions_3BL = torch.zeros(3, len(lessons), length, dtype=torch.long)
        pictures: dict[int, list[Picture]] = {}
        sides: list[int] = []
        for row, lesson in enumerate(lessons):
            ids, weights = self.tokens(lesson)
            own_sides = [picture.shape[0] for picture in lesson.pictures]
            positions_3L = positions(ids, image_id, [side // PATCH_FACTOR_PX for side in own_sides])
            count = min(length, len(ids))
            ids_BL[row, :count] = torch.tensor(ids[:count])
            weights_BL[row, :count] = torch.tensor(weights[:count])
            positions_3BL[:, row, :count] = torch.from_numpy(positions_3L[:, :count])
            sides += own_sides
            for picture in lesson.pictures:
                pictures.setdefault(picture.shape[0], []).append(picture)
        next_ids, next_weights = torch.roll(ids_BL, -1, 1), torch.roll(weights_BL, -1, 1)
        next_weights[:, -1] = 0
        chosen = next_weights.flatten().nonzero()[:, 0]
        stacked = {side: np.stack(group) for side, group in pictures.items()}
        return Batch(
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
    """Count time, row and column as Qwen-VL does, (3, L); `sides` are those of the pictures in
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


def draw_lesson(subject: Subject, rng: Draw, clips: Sequence[Clip]) -> Lesson:
    """Draw a lesson of a subject."""
    match subject:
        case Subject.READING:
            return reading(rng, 4 * FORMATS[subject].tokens)
        case Subject.FEW_FIGURES:
            return few_figures(rng)
        case Subject.MANY_FIGURES:
            return many_figures(rng, clips)
        case Subject.FRAMES:
            return frames_of_figures(rng, clips)
        case Subject.EPISODES:
            return episode(rng, clips)
        case Subject.STRAYING:
            return episode(rng, clips, IN_LESSONS)


def teach(
    model: Any,
    tokenizer: Any,
    clips: Sequence[Clip],
    how: TeachSettings,
    store: Path,
    progress: Callable[[int, dict[str, float]], None],
) -> None:
    """Train in place; `progress` is told the number of finished steps and the latest loss of each
    subject.
    """
    optimizer = MuonAdamW(model, matrix_lr=how.matrix_lr, other_lr=how.other_lr, schedule=how.rate)
    fast, encoder = FastForward(model, compiled=how.compiled), Encoder(tokenizer)
    losses: dict[str, float] = {}
    first = _restore(store, model, optimizer)
    for step in range(first, how.steps):
        rng = Draw(derive_seed(how.seed, "lessons", step))
        taken = [
            subject for subject, share in how.phase(step).lessons.items() if rng.random() < share
        ]
        for subject in taken:
            shape = FORMATS[subject]
            count = shape.sequences * (2 if len(taken) == 1 else 1)
            batch = encoder.batch(
                [draw_lesson(subject, rng, clips) for _ in range(count)], shape.tokens
            )
            loss, _ = fast.loss(batch)
            loss.backward()
            losses[subject] = float(loss.detach())
        # Unless they are exercised all the time, the eyes forget within a hundred steps what
        # picture tokens are to say.
        sight, _ = sight_loss(model, tokenizer, fast, rng, how.sight_pictures)
        (how.sight_weight * sight).backward()
        losses["sight"] = float(sight.detach())
        optimizer.step()
        progress(step + 1, losses)
        if (step + 1) % how.save_every == 0:
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
