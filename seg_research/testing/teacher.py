"""Teach a tiny model to say given turns, so that tests have a policy that searches and chooses key
frames without being sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from seg_research.episode.policy import Generation
from seg_research.episode.transcript import FinishReason, Message, TokenTrace
from seg_research.policies.chat_tokens import END_OF_TURN, ChatTokens
from seg_research.policies.processor import IMAGE_TOKEN

IGNORED = -100


@dataclass(slots=True)
class TeacherConversation:
    """Says given turns and keeps their tokens, so that what it plays has the trace of a rollout."""

    processor: Any
    turns: list[str]
    images: list[Image.Image] = field(default_factory=list)
    _chat: ChatTokens = field(init=False)
    _prompt: list[int] = field(default_factory=list)
    _ids: list[int] = field(default_factory=list)
    _mask: list[int] = field(default_factory=list)
    _last: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chat = ChatTokens(self.processor)

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Encode the opening."""
        self._prompt, self.images = (
            self._chat.opening(messages),
            [i.image for m in messages for i in m.images],
        )
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
        ids = self._chat.reply(self._last, message)
        self._ids += ids
        self._mask += [0] * len(ids)
        self.images += [i.image for i in message.images]
        return True

    def tokens(self) -> TokenTrace:
        """Return the trace."""
        return TokenTrace(
            tuple(self._prompt), tuple(self._ids), tuple(self._mask), (0.0,) * len(self._ids)
        )

    async def close(self) -> None:
        """Do nothing."""


def teach(
    model: Any, processor: Any, played: Sequence[TeacherConversation], *, steps: int, lr: float
) -> list[float]:
    """Train in place on all that was played, with loss on the said turns alone; return the loss of
    each step.
    """
    pad, image_id = (
        processor.tokenizer.pad_token_id,
        processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    traces = [teacher.tokens() for teacher in played]
    ids = [torch.tensor([*t.prompt_ids, *t.response_ids]) for t in traces]
    spoken = [torch.tensor([*[0] * len(t.prompt_ids), *t.response_mask]) for t in traces]
    ids_BL = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
    spoken_BL = torch.nn.utils.rnn.pad_sequence(spoken, batch_first=True)
    mask_BL = torch.nn.utils.rnn.pad_sequence(
        [torch.ones_like(own) for own in ids], batch_first=True
    )
    images = processor.image_processor(
        images=[image for teacher in played for image in teacher.images], return_tensors="pt"
    )
    kinds_BL = ((ids_BL == image_id) & (mask_BL == 1)).long()
    inputs = {
        "input_ids": ids_BL,
        "attention_mask": mask_BL,
        "mm_token_type_ids": kinds_BL,
        **images,
    }
    labels_BL = torch.where(spoken_BL == 1, ids_BL, IGNORED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98))
    losses: list[float] = []
    model.train()
    for _ in range(steps):
        logits = model(**inputs, use_cache=False).logits
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels_BL[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses
