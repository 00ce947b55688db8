"""Generate with a transformers model: many conversations at once, tokens in and tokens out, never
through text.

The verl rollout server and the local policy both use this engine. Requests that wait at the same
moment and sample alike become one padded batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from seg_common.errors import InfraError
from seg_research.episode.transcript import FinishReason
from seg_research.policies.processor import IMAGE_TOKEN, VISION_TOKENS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One generation to come.

    Attributes:
        prompt_ids: everything so far, image placeholders expanded, (L,).
        images: one for each placeholder run, in order.
        seed: what is sampled depends on it and on nothing that was generated before or beside; None
            draws one from torch's own generator.
    """

    prompt_ids: Sequence[int]
    images: Sequence[Image.Image]
    max_tokens: int
    sampling: Sampling
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens, and their log-probabilities as the trainer computes them: untruncated, at the
    sampling temperature.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: FinishReason


@dataclass(slots=True)
class _Pending:
    request: Request
    future: asyncio.Future[Completion] = field(repr=False)


async def settle(
    results: Awaitable[Sequence[Completion]], futures: Sequence[asyncio.Future[Completion]]
) -> None:
    """Hand results to those who wait for them, or to all of them whatever went wrong: nobody may
    wait for ever.
    """
    task = asyncio.ensure_future(results)
    await asyncio.wait([task])
    error = task.exception()
    for index, future in enumerate(futures):
        if future.done():  # cancelled meanwhile
            continue
        if error is None:
            future.set_result(task.result()[index])
        else:
            future.set_exception(error)


def _fresh_seed() -> int:
    return int(torch.randint(2**63 - 1, ()))


class _Recorder(LogitsProcessor):
    """Notes the log-probability of every sampled token, then bans some tokens; runs before
    truncation by top-p and top-k.

    It keeps the distribution of one step: those of a long turn over a real vocabulary would fill a
    GPU.
    """

    def __init__(self, temperature: float, banned: Sequence[int]) -> None:
        self._temperature, self._banned = temperature, list(banned)
        self._logprobs_BV: torch.Tensor | None = None
        self._taken: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._take(input_ids[:, -1])
        self._logprobs_BV = torch.log_softmax(scores.float() / self._temperature, dim=-1)
        scores = scores.clone()
        scores[:, self._banned] = -torch.inf
        return scores

    def _take(self, sampled_B: torch.Tensor) -> None:
        if self._logprobs_BV is not None:
            self._taken.append(self._logprobs_BV.gather(1, sampled_B.unsqueeze(1)))

    def logprobs(self, last_B: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities (B, L), given the tokens of the last step."""
        self._take(last_B)
        return torch.cat(self._taken, dim=1)


class _Sampler(LogitsProcessor):
    """Perturbs the scores so that the largest of each row is a sample, drawn with the row's own
    generator (an exponential race).
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], device: torch.device) -> None:
        self._warpers: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_k > 0:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        waits_BV = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(waits_BV, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - waits_BV.log()


class TransformersEngine:
    """A model, its processor, and a queue in front of them."""

    def __init__(
        self, model: Any, processor: Any, *, max_batch: int = 32, gather_s: float = 0.01
    ) -> None:
        """Wrap a loaded model; `gather_s` is how long a first request waits for company."""
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self._max_batch, self._gather_s = max_batch, gather_s
        self._queue: list[_Pending] = []
        self._drain: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        known = self.tokenizer.get_vocab()
        self._banned = [known[token] for token in VISION_TOKENS if token in known]
        self._image_id = known[IMAGE_TOKEN]

    @classmethod
    def load(
        cls, path: Path, processor: Any, device: torch.device | None = None, **queue: Any
    ) -> TransformersEngine:
        """Load a checkpoint folder, in bf16 on a GPU and in fp32 elsewhere; without a device, on
        the GPU if there is one.

        `queue` holds options of the constructor.
        """
        from transformers import AutoModelForImageTextToText
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        model: Any = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa"
        )
        return cls(model.to(device).eval(), processor, **queue)

    async def generate(self, request: Request) -> Completion:
        """Generate one turn.

        Raises:
            InfraError: the model failed.
        """
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._queue.append(_Pending(request, future))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._drain_queue())
        return await future

    async def run_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Generate for exactly these requests, in one batch of their own; all must sample alike.

        Raises:
            InfraError: the model failed, e.g. for want of memory.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._generate, requests
            )
        except RuntimeError as error:
            logger.exception("generation failed for a batch of %d", len(requests))
            raise InfraError(f"the model failed to generate: {error}") from error

    async def _drain_queue(self) -> None:
        await asyncio.sleep(self._gather_s)
        while self._queue:
            sampling = self._queue[0].request.sampling
            batch = [p for p in self._queue if p.request.sampling == sampling][: self._max_batch]
            taken = {id(p) for p in batch}
            self._queue = [p for p in self._queue if id(p) not in taken]
            await settle(self.run_batch([p.request for p in batch]), [p.future for p in batch])

    @torch.no_grad()
    def _generate(self, requests: Sequence[Request]) -> list[Completion]:
        sampling = requests[0].sampling
        inputs = self._batch_inputs(requests)
        width = inputs["input_ids"].shape[1]
        greedy = sampling.temperature == 0
        recorder = _Recorder(1.0 if greedy else sampling.temperature, self._banned)
        processors: list[LogitsProcessor] = [recorder]
        if not greedy:
            seeds = [
                _fresh_seed() if request.seed is None else request.seed for request in requests
            ]
            processors.append(_Sampler(sampling, seeds, self.model.device))
        options: dict[str, Any] = {"do_sample": False, "pad_token_id": self.tokenizer.pad_token_id}
        if sampling.stop_strings:
            options |= {"stop_strings": list(sampling.stop_strings), "tokenizer": self.tokenizer}
        limit = max(r.max_tokens for r in requests)
        sequences = self.model.generate(
            **inputs, **options, logits_processor=processors, max_new_tokens=limit, use_cache=True
        )
        sampled = sequences[:, width:]
        logprobs = recorder.logprobs(sampled[:, -1])
        return [
            self._cut(row, lp, request)
            for row, lp, request in zip(sampled.tolist(), logprobs.tolist(), requests, strict=True)
        ]

    def _cut(self, token_ids: list[int], logprobs: list[float], request: Request) -> Completion:
        """Cut one row of the batch where its own turn ended; the batch ran on until its longest row
        was done.
        """
        end = self.tokenizer.eos_token_id
        stops = request.sampling.stop_strings
        for index in range(min(len(token_ids), request.max_tokens)):
            ended = token_ids[index] == end
            if not ended and stops:
                # A stop string spans a handful of tokens; only the tail can complete it.
                tail = self.tokenizer.decode(token_ids[max(0, index - 15) : index + 1])
                ended = any(stop in tail for stop in stops)
            if ended:
                return Completion(
                    tuple(token_ids[: index + 1]), tuple(logprobs[: index + 1]), FinishReason.STOP
                )
        limit = request.max_tokens
        return Completion(tuple(token_ids[:limit]), tuple(logprobs[:limit]), FinishReason.LENGTH)

    def _batch_inputs(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """Left-pad the prompts and stack the images of the whole batch, in token order."""
        width = max(len(r.prompt_ids) for r in requests)
        ids_BL = torch.full((len(requests), width), self.tokenizer.pad_token_id)
        mask_BL = torch.zeros_like(ids_BL)
        for row, request in enumerate(requests):
            ids_BL[row, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            mask_BL[row, width - len(request.prompt_ids) :] = 1
        inputs = {"input_ids": ids_BL, "attention_mask": mask_BL}
        images = [image for request in requests for image in request.images]
        if images:
            features = self.processor.image_processor(images=images, return_tensors="pt")
            inputs |= {
                "pixel_values": features["pixel_values"].to(self.model.dtype),
                "image_grid_thw": features["image_grid_thw"],
                "mm_token_type_ids": ((ids_BL == self._image_id) & (mask_BL == 1)).long(),
            }
        return {name: tensor.to(self.model.device) for name, tensor in inputs.items()}

    def load_weights(self, named: Mapping[str, torch.Tensor]) -> None:
        """Replace weights in place.

        Raises:
            InfraError: a name is unknown: the trainer holds another model.
        """
        _, unexpected = self.model.load_state_dict(dict(named), strict=False)
        if unexpected:
            raise InfraError(
                f"weight sync: {len(unexpected)} unknown parameters, e.g. {unexpected[:3]}"
            )
