"""A Qwen-VL policy in this process, through transformers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from PIL import Image

from seg_common.errors import InvariantError
from seg_research.data.sample import Sample
from seg_research.episode.limits import Limits
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import Message, TokenTrace
from seg_research.policies.chat_tokens import ChatTokens
from seg_research.policies.engine import Completion, Request, Sampling
from seg_research.policies.turn_barrier import TurnBarrier


@dataclass(slots=True, eq=False)
class LocalConversation:
    """One chat; keeps ids, mask and log-probabilities as they come."""

    chat: ChatTokens
    batch: TurnBarrier
    limits: Limits
    sampling: Sampling
    max_prompt_tokens: int
    _prompt_ids: list[int] = field(default_factory=list)
    _response_ids: list[int] = field(default_factory=list)
    _mask: list[int] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)
    _images: list[Image.Image] = field(default_factory=list)
    _last_turn: tuple[int, ...] = ()

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Encode the opening; False if it is longer than the prompt budget."""
        ids = self.chat.opening(messages)
        if len(ids) > self.max_prompt_tokens:
            return False
        self._prompt_ids, self._images = ids, [i.image for m in messages for i in m.images]
        return True

    async def generate(self, max_tokens: int) -> Generation:
        """Sample one turn within what is left of the response budget."""
        started = time.perf_counter()
        budget = min(max_tokens, self.limits.max_response_tokens - len(self._response_ids))
        if budget < 1:
            raise InvariantError(
                f"no room to generate: {len(self._response_ids)} of"
                f" {self.limits.max_response_tokens} response tokens are used"
            )
        request = Request(
            [*self._prompt_ids, *self._response_ids], list(self._images), budget, self.sampling
        )
        turn: Completion = await self.batch.generate(self, request)
        self._append(turn.token_ids, 1, turn.logprobs)
        self._last_turn = turn.token_ids
        text = self.batch.engine.tokenizer.decode(turn.token_ids, skip_special_tokens=True)
        return Generation(
            text, turn.finish, len(turn.token_ids), turn.logprobs, time.perf_counter() - started
        )

    async def observe(self, message: Message) -> bool:
        """Append a message and its images together, or nothing."""
        ids = self.chat.reply(self._last_turn, message)
        if (
            len(self._response_ids) + len(ids) + self.limits.reserve_tokens
            > self.limits.max_response_tokens
        ):
            return False
        self._append(ids, 0, [0.0] * len(ids))
        self._images += [i.image for i in message.images]
        return True

    def _append(
        self, ids: list[int] | tuple[int, ...], mask: int, logprobs: list[float] | tuple[float, ...]
    ) -> None:
        self._response_ids += ids
        self._mask += [mask] * len(ids)
        self._logprobs += logprobs

    async def close(self) -> None:
        """Leave the group, so that the others no longer wait."""
        await self.batch.leave(self)

    def tokens(self) -> TokenTrace:
        """Return the tokens so far."""
        return TokenTrace(
            tuple(self._prompt_ids),
            tuple(self._response_ids),
            tuple(self._mask),
            tuple(self._logprobs),
        )


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """Opens conversations that generate together."""

    chat: ChatTokens
    batch: TurnBarrier
    limits: Limits
    sampling: Sampling
    max_prompt_tokens: int = 8192

    def converse(self, sample: Sample, rollout: int) -> LocalConversation:
        """Start a conversation; it joins the group at once."""
        conversation = LocalConversation(
            self.chat, self.batch, self.limits, self.sampling, self.max_prompt_tokens
        )
        self.batch.join(conversation)
        return conversation
