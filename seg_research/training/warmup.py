"""A quick supervised warm-up of the tiny model on demonstrations, played through the real episode loop and the real search server.

Loss falls on demonstrated turns only; the opening prompt and all observations are context.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from seg_research.core.errors import InfraError
from seg_research.core.transcript import FinishReason, Message, StopReason, TokenTrace
from seg_research.datasets.sample import Sample
from seg_research.env.policy import Generation
from seg_research.env.runner import run_episode
from seg_research.models.processor import IMAGE_TOKEN, VISION_TOKENS
from seg_research.policies.chat_tokens import END_OF_TURN, ChatTokens
from seg_research.policies.imitation import Variety, demonstration
from seg_research.protocol.prompts import build_messages
from seg_research.recipes.settings import EpisodeSettings
from seg_research.tools.base import Tool

IGNORED = -100
_RESULT_LAYOUT = "Frame 0 in high resolution: 1. (Title: ) 2. (Title: ) 3. (Title: ) Nothing was found. That turn could not be used:"


@dataclass(slots=True)
class TeacherConversation:
    """Says the demonstrated turns and keeps their tokens, so that a demonstration has the same trace as a rollout."""

    chat: ChatTokens
    processor: Any
    turns: list[str]
    images: list[Image.Image] = field(default_factory=list)
    _prompt: list[int] = field(default_factory=list)
    _ids: list[int] = field(default_factory=list)
    _mask: list[int] = field(default_factory=list)
    _last: list[int] = field(default_factory=list)

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Encode the opening."""
        self._prompt, self.images = self.chat.opening(messages), [i.image for m in messages for i in m.images]
        return True

    async def generate(self, max_tokens: int) -> Generation:
        """Say the next turn, closed by the end-of-turn token."""
        text = self.turns.pop(0) if self.turns else ""
        self._last = self.processor.tokenizer.encode(text + END_OF_TURN, add_special_tokens=False)
        self._ids += self._last
        self._mask += [1] * len(self._last)
        return Generation(text, FinishReason.STOP, len(self._last))

    async def observe(self, message: Message) -> bool:
        """Encode an observation; it carries no loss."""
        ids = self.chat.reply(self._last, message)
        self._ids += ids
        self._mask += [0] * len(ids)
        self.images += [i.image for i in message.images]
        return True

    def tokens(self) -> TokenTrace:
        """Return the trace."""
        return TokenTrace(tuple(self._prompt), tuple(self._ids), tuple(self._mask), (0.0,) * len(self._ids))

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """One demonstration ready for the model: ids and labels (L,), picture patches and grids as the processor makes them."""

    ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor


@dataclass(frozen=True, slots=True)
class WarmupSettings:
    """How long and how fast."""

    steps: int = 400
    batch_size: int = 8
    lr: float = 3e-3
    seed: int = 0
    variants: int = 4
    """Demonstrations of each sample."""
    text_share: float = 0.75
    """The first steps leave the pictures out: turns and names are learned from text, at a quarter of the cost."""
    variety: Variety = field(default_factory=Variety)


async def demonstrate(
    samples: Sequence[Sample],
    settings: EpisodeSettings,
    tools: Sequence[Tool],
    processor: Any,
    how: WarmupSettings,
    progress: Callable[[], None],
) -> list[Example]:
    """Play demonstrations of every sample through the episode loop.

    Raises:
        InfraError: the search server failed.
    """
    recipe, chat = settings.build_recipe(), ChatTokens(processor)
    gate = asyncio.Semaphore(16)

    async def play(sample: Sample, rollout: int) -> Example:
        async with gate:
            teacher = TeacherConversation(chat, processor, demonstration(sample, rollout, how.seed, how.variety))
            transcript = await run_episode(recipe.episode(sample, settings.limits), teacher, tools)
            if transcript.stop is StopReason.INFRA:
                raise InfraError(transcript.error)
            progress()
            return _example(teacher, processor)

    return list(await asyncio.gather(*(play(sample, rollout) for rollout in range(how.variants) for sample in samples)))


def _example(teacher: TeacherConversation, processor: Any) -> Example:
    trace = teacher.tokens()
    ids = torch.tensor([*trace.prompt_ids, *trace.response_ids])
    mask = torch.tensor([*[0] * len(trace.prompt_ids), *trace.response_mask])
    features = processor.image_processor(images=teacher.images, return_tensors="pt")
    return Example(ids, torch.where(mask == 1, ids, IGNORED), features["pixel_values"], features["image_grid_thw"])


def read_corpus(samples: Sequence[Sample], how: WarmupSettings) -> list[str]:
    """Collect the text a tokenizer for these samples should know: prompts and demonstrated turns."""
    texts: list[str] = []
    for sample in samples:
        messages = build_messages(sample.question, sample.ability, [f.frame_id for f in sample.frames], brief=True)
        texts += [m["content"] for m in messages]
        texts += [turn for rollout in range(how.variants) for turn in demonstration(sample, rollout, how.seed, how.variety)]
    return [*texts, _RESULT_LAYOUT]


def train(model: Any, examples: Sequence[Example], processor: Any, how: WarmupSettings, progress: Callable[[float], None]) -> float:
    """Train in place; return the mean loss of the last tenth of the steps. `progress` is told the loss of each step."""
    # AdamW, not Muon: Muon's orthogonalisation runs in bfloat16, which CPUs without such units emulate at a twentieth of their speed.
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, betas=(0.9, 0.98), weight_decay=0.01)
    decay_from = 0.6 * how.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10, max(0.02, (how.steps - step) / (how.steps - decay_from)))
    )
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    pad_id = processor.tokenizer.pad_token_id
    rng = random.Random(how.seed)
    with_pictures = sorted(examples, key=lambda e: len(e.ids))
    vision_ids = torch.tensor(processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)))
    text_only = [_without_pictures(example, vision_ids) for example in with_pictures]
    model.train()
    losses: list[float] = []
    for step in range(how.steps):
        pool = text_only if step < how.text_share * how.steps else with_pictures
        inputs, labels = _collate(_batch(pool, how.batch_size, rng), pad_id, image_id)
        logits = model(**inputs, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        progress(losses[-1])
    model.eval()
    tail = losses[-max(1, how.steps // 10) :]
    return sum(tail) / len(tail)


def _without_pictures(example: Example, vision_ids: torch.Tensor) -> Example:
    keep = ~torch.isin(example.ids, vision_ids)
    return Example(example.ids[keep], example.labels[keep], example.pixel_values[:0], example.image_grid_thw[:0])


def _batch(by_length: Sequence[Example], size: int, rng: random.Random) -> Sequence[Example]:
    """Take neighbours in length: attention over padding is most of the cost on a CPU."""
    start = rng.randrange(max(1, len(by_length) - size + 1))
    return by_length[start : start + size]


def _collate(batch: Sequence[Example], pad_id: int, image_id: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Right-pad to (B, L) and stack all pictures in order."""
    ids_BL = torch.nn.utils.rnn.pad_sequence([e.ids for e in batch], batch_first=True, padding_value=pad_id)
    labels_BL = torch.nn.utils.rnn.pad_sequence([e.labels for e in batch], batch_first=True, padding_value=IGNORED)
    lengths = torch.tensor([len(e.ids) for e in batch])
    mask_BL = (torch.arange(ids_BL.shape[1])[None] < lengths[:, None]).long()
    inputs = {"input_ids": ids_BL, "attention_mask": mask_BL}
    if any(len(e.image_grid_thw) for e in batch):
        inputs |= {
            "pixel_values": torch.cat([e.pixel_values for e in batch]),
            "image_grid_thw": torch.cat([e.image_grid_thw for e in batch]),
            "mm_token_type_ids": ((ids_BL == image_id) & (mask_BL == 1)).long(),
        }
    return inputs, labels_BL
