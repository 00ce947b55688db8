"""Rollouts with transformers inside verl: one Ray actor a replica around our engine, and the
adapter that sends it new weights.

Meant for CPUs, tiny models and models that no inference engine serves; GPU training uses verl's own
vLLM replica.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from seg_common.errors import UsageError
from seg_research.episode.transcript import FinishReason
from seg_research.policies.engine import Request, Sampling, TransformersEngine

_GATHER_S = 0.1
"""Turns that end together go to the tools and come back one by one; this long their next turns are
collected into one batch.
"""


def _actor_name(replica_rank: int) -> str:
    return f"seg_research_transformers_{replica_rank}"


class TransformersServer:
    """The actor: takes token ids and images, returns token ids and log-probabilities."""

    def __init__(self, config: Any, model_config: Any, replica_rank: int) -> None:
        model: HFModelConfig = omega_conf_to_dataclass(model_config)
        self._config, self._global_steps = config, 0
        # A GPU that happens to be there is not for a run on the CPU platform: its bf16 would
        # disagree with the trainer's fp32.
        device = torch.device("cpu") if os.environ.get("VERL_PLATFORM") == "cpu" else None
        # The company in a batch changes the last digits of the logits, and once in a million tokens
        # what is sampled.
        queue: dict[str, Any] = (
            {"max_batch": 1, "gather_s": 0.0}
            if config.full_determinism
            else {"max_batch": 64, "gather_s": _GATHER_S}
        )
        self._engine = TransformersEngine.load(
            Path(str(model.local_path)), model.processor, device, **queue
        )

    async def ready(self) -> int:
        """Answer once the model is loaded, with this process's id."""
        return os.getpid()

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Any] | None = None,
        video_data: list[Any] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """Generate one turn; verl's server interface."""
        room = self._config.prompt_length + self._config.response_length - len(prompt_ids)
        sampling = Sampling(
            float(sampling_params.get("temperature", 1.0)),
            float(sampling_params.get("top_p", 1.0)),
            int(sampling_params.get("top_k", -1)),
            tuple(sampling_params.get("stop") or ()),
        )
        limit = max(1, min(int(sampling_params.get("max_tokens", room)), room))
        request = Request(
            prompt_ids, image_data or [], limit, sampling, sampling_params.get("seed")
        )
        turn = await self._engine.generate(request)
        return TokenOutput(
            token_ids=list(turn.token_ids),
            log_probs=list(turn.logprobs),
            stop_reason="completed" if turn.finish is FinishReason.STOP else "length",
            num_preempted=0,
            extra_fields={"global_steps": self._global_steps},
        )

    async def update_weights(self, named: dict[str, torch.Tensor]) -> None:
        """Replace weights after a training step."""
        self._engine.load_weights(named)

    async def set_global_steps(self, global_steps: int) -> None:
        """Remember which step the weights are of."""
        self._global_steps = global_steps

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Do nothing: the CPU holds trainer and server at once."""

    async def sleep(self) -> None:
        """Do nothing: the CPU holds trainer and server at once."""

    async def clear_kv_cache(self) -> None:
        """Do nothing: no cache outlives a generation."""

    release_kv_cache = resume_kv_cache = resume_generation = stop_profile = clear_kv_cache

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        """Do nothing: synchronous training never aborts."""

    async def start_profile(self, **_: Any) -> None:
        """Do nothing: there is no profiler here."""


class TransformersReplica(RolloutReplica):
    """Starts the actor for verl."""

    async def launch_servers(self) -> None:
        """Start one actor and wait until its model is loaded.

        Raises:
            UsageError: tensor parallelism was asked for.
        """
        if self.world_size != 1:
            raise UsageError(
                "rollout=transformers runs one process a replica; set "
                "actor_rollout_ref.rollout.tensor_model_parallel_size=1"
            )
        name = _actor_name(self.replica_rank)
        actor: Any = ray.remote(TransformersServer)
        server = actor.options(name=name, num_cpus=0, max_concurrency=self.max_concurrency).remote(
            self.config, self.model_config, self.replica_rank
        )
        pid = await server.ready.remote()
        self.servers, self._server_handle = [server], server
        self._server_address = f"ray-actor://{name}/{pid}"


class TransformersAdapter(BaseRollout):
    """Lives in the trainer's process and hands new weights to the actor."""

    def __init__(
        self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1
    ) -> None:
        super().__init__(config, model_config, device_mesh)
        self._replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self._actor: Any = None

    async def resume(self, tags: list[str]) -> None:
        """Do nothing: the CPU holds trainer and server at once."""

    async def release(self) -> None:
        """Do nothing: the CPU holds trainer and server at once."""

    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        global_steps: int | None = None,
        wire_format: str = "named_tensors",
        peft_config: Any = None,
        **_: Any,
    ) -> None:
        """Send all weights through Ray's object store.

        Raises:
            UsageError: an adapter was sent instead of merged weights.
        """
        if wire_format != "named_tensors" or peft_config is not None:
            raise UsageError(
                "rollout=transformers needs whole weights; set "
                "actor_rollout_ref.model.lora.merge=True"
            )
        if self._actor is None:
            self._actor = ray.get_actor(_actor_name(self._replica_rank))
        named = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}
        await self._actor.update_weights.remote(named)
        if global_steps is not None:
            await self._actor.set_global_steps.remote(global_steps)
