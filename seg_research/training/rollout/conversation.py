"""A conversation whose tokens verl keeps: its server generates, its continuous-token helpers merge,
and nothing is ever re-encoded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import uuid4

from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopBase
from verl.utils.profiler import simple_timer

from seg_common.errors import InfraError, InvariantError
from seg_research.core.seeding import derive_seed
from seg_research.data.sample import Sample
from seg_research.episode.limits import Limits
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import FinishReason, ImageRef, Message, TokenTrace
from seg_research.policies.chat_tokens import END_OF_TURN, as_chat
from seg_research.policies.processor import VISION_TOKENS
from seg_research.training.rollout.ray_image_ref import ImageLender, RayImage


class VerlConversation:
    """One trajectory. Images and the tokens that stand for them are admitted together or not at
    all.
    """

    def __init__(
        self,
        loop: AgentLoopBase,
        sampling_params: dict[str, Any],
        stop_strings: tuple[str, ...],
        limits: Limits,
        lender: ImageLender | None = None,
    ) -> None:
        """Start with no tokens.

        Args:
            loop: brings its server client and token helpers.
            sampling_params: of verl.
            stop_strings: a turn ends behind the first of these.
            limits: of the episode.
            lender: shared by the conversations that may show the same images.
        """
        self.metrics: dict[str, float] = {}
        self.global_steps: dict[str, Any] = {}
        self.images: list[Image.Image] = []
        self._lent: list[RayImage] = []
        self._lender = ImageLender() if lender is None else lender
        self._loop: Any = loop
        self._limits = limits
        self._sampling = {
            **sampling_params,
            "stop": list(stop_strings),
            "include_stop_str_in_output": True,
        }
        self._request_id = uuid4().hex
        self._end_id: int = self._loop.tokenizer.convert_tokens_to_ids(END_OF_TURN)
        self._vision_ids = frozenset(
            self._loop.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
        )
        self._messages: list[dict[str, Any]] = []
        self._ids: list[int] = []
        self._mask: list[int] = []
        self._logprobs: list[float] = []
        self._num_prompt = 0
        self._last_text = ""

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Encode the opening; False where it is longer than `data.max_prompt_length`."""
        self._messages = [as_chat(message) for message in messages]
        shown = chain.from_iterable(message.images for message in messages)
        self.images = [image.image for image in shown]
        try:
            self._ids = await self._loop.ct_build_initial_tokens(
                self._messages, images=self.images or None
            )
        except ValueError as error:
            # verl's only signal for a multimodal prompt above the limit.
            if "prompt_length" in str(error):
                return False
            raise
        self._lent = list(map(self._lender.lend, self.images))
        self._num_prompt = len(self._ids)
        return True

    async def generate(self, max_tokens: int) -> Generation:
        """Sample one turn within what is left of the response budget."""
        budget = min(max_tokens, self._limits.max_response_tokens - len(self._mask))
        if budget < 1:
            raise InvariantError(
                f"no room to generate: {len(self._mask)} of {self._limits.max_response_tokens} "
                "response tokens are used"
            )
        sampling = {**self._sampling, "max_tokens": budget}
        if "seed" in sampling:
            sampling["seed"] = derive_seed(sampling["seed"], len(self._mask))
        started = time.perf_counter()
        with simple_timer("generate_sequences", self.metrics):
            output = await self._loop.server_manager.generate(
                request_id=self._request_id,
                prompt_ids=self._ids,
                sampling_params=sampling,
                image_data=self._lent or None,
            )
        sampled = self._before_vision(list(output.token_ids)[:budget])
        logprobs = list(output.log_probs or [0.0] * len(sampled))[: len(sampled)]
        merged, self._mask, self._logprobs = await self._loop.ct_merge_assistant_token(
            self._ids, sampled, self._mask, self._logprobs, assistant_logprobs=logprobs
        )
        self._ids = merged.token_ids
        step = output.extra_fields.get("global_steps")
        self.global_steps.setdefault(
            "min_global_steps", output.extra_fields.get("min_global_steps", step)
        )
        self.global_steps["max_global_steps"] = output.extra_fields.get("max_global_steps", step)
        self._last_text = self._loop.tokenizer.decode(sampled, skip_special_tokens=True)
        cut = min(budget, len(output.token_ids)) > len(sampled) or (
            len(sampled) >= budget and sampled[-1] != self._end_id
        )
        finish = FinishReason.LENGTH if cut or output.stop_reason == "length" else FinishReason.STOP
        return Generation(
            self._last_text, finish, len(sampled), tuple(logprobs), time.perf_counter() - started
        )

    def _before_vision(self, sampled: list[int]) -> list[int]:
        """Cut a turn where it claims an image: verl would look for the pixels of a placeholder
        that was sampled, and the trainer dies.

        Raises:
            InfraError: nothing is left to learn from.
        """
        place = next(
            (place for place, token in enumerate(sampled) if token in self._vision_ids), None
        )
        if place == 0:
            raise InfraError("the policy began a turn with a token that stands for an image")
        return sampled[:place]

    async def observe(self, message: Message) -> bool:
        """Append a message and its images, or nothing if they leave less than the reserve."""
        before = [*self._messages, {"role": "assistant", "content": self._last_text}]
        after = [*before, as_chat(message)]
        # A turn that ended in a stop string has no end-of-turn token; the host writes it, so its
        # mask is 0.
        closing = [] if self._ids[-1] == self._end_id else [self._end_id]
        merged, mask, logprobs = await self._loop.ct_merge_context_msg(
            before,
            after,
            [*self._ids, *closing],
            [*self._mask, *[0] * len(closing)],
            [*self._logprobs, *[0.0] * len(closing)],
        )
        if len(mask) + self._limits.reserve_tokens > self._limits.max_response_tokens:
            return False
        self._messages, self._ids, self._mask, self._logprobs = (
            after,
            merged.token_ids,
            mask,
            logprobs,
        )
        shown = [part.image for part in message.parts if isinstance(part, ImageRef)]
        self.images += shown
        self._lent += map(self._lender.lend, shown)
        return True

    async def close(self) -> None:
        """Do nothing: verl's server keeps no state between turns."""

    def tokens(self) -> TokenTrace:
        """Return the tokens so far."""
        prompt_ids, response_ids = self._ids[: self._num_prompt], self._ids[self._num_prompt :]
        return TokenTrace(
            tuple(prompt_ids), tuple(response_ids), tuple(self._mask), tuple(self._logprobs)
        )


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Opens conversations of one agent loop, with equal sampling."""

    loop: AgentLoopBase
    sampling_params: dict[str, Any]
    stop_strings: tuple[str, ...]
    limits: Limits
    lender: ImageLender

    def converse(self, sample: Sample, rollout: int) -> VerlConversation:
        """Start a conversation; nothing is shown to the policy yet."""
        return VerlConversation(
            self.loop, self.sampling_params, self.stop_strings, self.limits, self.lender
        )
