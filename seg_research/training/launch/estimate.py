"""What a run will need, before anything starts: tokens of an episode and memory of a GPU, by
formulas that docs/training.md repeats.

A cold start is an update and nothing else.

GB are 10⁹ bytes. With P parameters, T of them trained, on W devices, micro-batches of N tokens:

    update:   weights 4P/W + gradients 4T/W + optimiser 8T/W (fp32; zero where they live in host
    memory)
              + gathered 2·(2 layers + embeddings) + activations 2N·(layers·hidden + 2·interior of a
              layer) + logits 6N·vocabulary + other
    rollout:  weights and optimiser, unless offloaded, + the engine's share of the card + other

The interior of a layer is 4·hidden + 2·(heads + key-value heads)·head size + 3·intermediate numbers
a token. Logits stand in bf16 three times: as they are, as log-probabilities and as gradients.
`other` is the CUDA context, communication buffers and the allocator's slack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.data.sample import Sample
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.registry import build_recipe
from seg_research.training.launch.config import episode_settings
from seg_research.training.launch.model_shape import ModelShape, model_shape

GB = 1e9
OTHER_GB = 2.0
CHARS_PER_TOKEN = 4
"""Of English text, roughly."""


@dataclass(frozen=True, slots=True)
class EpisodeTokens:
    """Tokens of an episode's parts. Text is estimated from its length; images are exact."""

    prompt_images: int
    prompt_text: int
    keyframe: int
    search_image: int

    @property
    def prompt(self) -> int:
        """Tokens of the longest opening prompt."""
        return self.prompt_images + self.prompt_text


def episode_tokens(
    config: DictConfig, samples: Sequence[Sample], shape: ModelShape
) -> EpisodeTokens:
    """Estimate the tokens of the longest opening prompt and of what observations show.

    Raises:
        UsageError: the images alone are longer than the prompt may be.
    """
    settings = episode_settings(config)

    def image_tokens(size: ImageSize) -> int:
        return max(1, round(size.width_px / shape.patch_px)) * max(
            1, round(size.height_px / shape.patch_px)
        )

    longest = max(
        samples, key=lambda sample: sum(image_tokens(f.shown_size) for f in sample.offered)
    )
    images = sum(image_tokens(frame.shown_size) for frame in longest.offered)
    if images > settings.max_prompt_tokens:
        raise UsageError(
            f"the frames of sample {longest.sample_id} take {images} tokens, but "
            f"data.max_prompt_length={settings.max_prompt_tokens}; "
            "raise it, or prepare the data with fewer or smaller frames"
        )
    keyframe, found = settings.view.keyframe_px, settings.view.search_image_px
    return EpisodeTokens(
        images,
        _text_tokens(build_recipe(settings), samples),
        image_tokens(ImageSize(keyframe, keyframe)),
        image_tokens(ImageSize(found, found)),
    )


def _text_tokens(recipe: Recipe, samples: Sequence[Sample]) -> int:
    """Estimate the text of the longest prompt, from the longest question of each kind."""
    kinds = {sample.ability for sample in samples}
    longest = [
        max((s for s in samples if s.ability == kind), key=lambda s: len(s.question))
        for kind in kinds
    ]
    shown = [recipe.prompt(sample) for sample in longest]
    return max(sum(len(m.plain()) for m in messages) for messages in shown) // CHARS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of one device, in GB, part by part.

    Attributes:
        update, rollout: parts of the two phases; each phase needs their sum.
        engine_weights: share of the rollout engine that its weights take.
        cache_tokens: tokens for which one engine has room in the rest of that share; None where the
            engine has no share.
        host: what is kept in the memory of each node.
        device: what the device has; None where nobody said.
        longest: tokens of the longest sequence the engine must be able to hold.
    """

    update: Mapping[str, float]
    rollout: Mapping[str, float]
    engine_weights: float
    cache_tokens: int | None
    host: float
    device: float | None
    longest: int

    @property
    def peak(self) -> float:
        """The larger of the two phases."""
        return max(sum(self.update.values()), sum(self.rollout.values()))

    @property
    def complaint(self) -> str | None:
        """Say what does not fit."""
        if too_much := _too_much(self.peak, self.device):
            return too_much
        if self.cache_tokens is not None and self.cache_tokens < self.longest:
            return (
                f"the engine's share has room for {max(self.cache_tokens, 0):,} tokens and it "
                "would not start: a trajectory may have "
                f"{self.longest:,}; raise rollout.gpu_memory_utilization or "
                "rollout.tensor_model_parallel_size"
            )
        return None


@dataclass(frozen=True, slots=True)
class Learning:
    """Memory of the update, in GB.

    Attributes:
        update: parts of what one device needs.
        rests: what of it one device keeps when it does something else.
        host: what one device has put into the memory of its node.
    """

    update: Mapping[str, float]
    rests: Mapping[str, float]
    host: float


def _too_much(needed_gb: float, device_gb: float | None) -> str | None:
    if device_gb is None or needed_gb <= device_gb:
        return None
    return (
        f"{needed_gb:.0f} GB do not fit into {device_gb:.0f} GB; offload, shard over more devices, "
        "or choose another hardware"
    )


def estimate_learning(
    shape: ModelShape, model: DictConfig, engine: DictConfig, trainer: DictConfig, num_tokens: int
) -> Learning:
    """Estimate the memory of updates with micro-batches of `num_tokens`; the three parts are those
    of verl's tree for any trainer.
    """
    world, width = trainer.nnodes * trainer.n_gpus_per_node, _width(trainer)
    trained = shape.adapter_params(model.lora_rank) if model.lora_rank else shape.num_params
    total = shape.num_params + (trained if model.lora_rank else 0)
    sharded = {
        "weights": 4 * total / world / GB,
        "gradients": 4 * trained / world / GB,
        "optimiser": 8 * trained / world / GB,
    }
    resting = engine.offload_policy
    update = {name: 0.0 if resting else value for name, value in sharded.items()}
    update["gathered"] = width * (2 * shape.layer_params + shape.embedding_params) / GB
    update["activations"] = (
        width * num_tokens * _numbers_per_token(shape, model.enable_gradient_checkpointing) / GB
    )
    update["logits"] = 3 * width * num_tokens * shape.vocab / GB
    update["other"] = OTHER_GB
    away = {
        "weights": resting or engine.param_offload,
        "gradients": resting,
        "optimiser": resting or engine.optimizer_offload,
    }
    return Learning(
        update=update,
        rests={name: 0.0 if away[name] else sharded[name] for name in ("weights", "optimiser")},
        host=sum(value for name, value in sharded.items() if away[name]),
    )


def _width(trainer: DictConfig) -> int:
    return 4 if trainer.device == "cpu" else 2


def estimate_memory(config: DictConfig, shape: ModelShape) -> MemoryEstimate:
    """Estimate the memory of one device by the formulas above."""
    actor, rollout, trainer = (
        config.actor_rollout_ref.actor,
        config.actor_rollout_ref.rollout,
        config.trainer,
    )
    width, longest = (
        _width(trainer),
        config.data.max_prompt_length + config.data.max_response_length,
    )
    num_tokens = (
        actor.ppo_max_token_len_per_gpu
        if actor.use_dynamic_bsz
        else actor.ppo_micro_batch_size_per_gpu * longest
    )
    learning = estimate_learning(
        shape, config.actor_rollout_ref.model, actor.fsdp_config, trainer, num_tokens
    )
    weights = width * shape.num_params / rollout.tensor_model_parallel_size / GB
    device, share = config.seg.gpu_gb, None
    if rollout.name != "transformers" and device is not None:
        share = rollout.gpu_memory_utilization * device
    per_token = (
        width
        * 2
        * shape.layers
        * shape.kv_heads
        * shape.head_dim
        / rollout.tensor_model_parallel_size
    )
    return MemoryEstimate(
        update=learning.update,
        rollout={
            **learning.rests,
            "engine": weights if share is None else share,
            "other": OTHER_GB,
        },
        engine_weights=weights,
        cache_tokens=None if share is None else int((share - weights - OTHER_GB) * GB / per_token),
        host=trainer.n_gpus_per_node * learning.host,
        device=device,
        longest=rollout.max_model_len or longest,
    )


def _numbers_per_token(shape: ModelShape, checkpointed: bool) -> int:
    """Count the numbers that a token leaves behind for the backward pass."""
    interior = (
        4 * shape.hidden
        + 2 * (shape.heads + shape.kv_heads) * shape.head_dim
        + 3 * shape.intermediate
    )
    return shape.layers * shape.hidden + 2 * interior if checkpointed else shape.layers * interior


def describe(config: DictConfig, samples: Sequence[Sample]) -> list[str]:
    """Say what a run will need, a line each.

    Raises:
        UsageError: the images of a sample are longer than the prompt may be.
    """
    path = config.actor_rollout_ref.model.path
    shape = model_shape(path)
    if shape is None:
        return [_unknown(path)]
    tokens, memory = episode_tokens(config, samples, shape), estimate_memory(config, shape)
    room = config.data
    lines = [
        f"tokens of an episode: prompt about {tokens.prompt:,} ({tokens.prompt_images:,} of "
        f"images) of {room.max_prompt_length:,}, "
        f"key frame {tokens.keyframe:,}, image found {tokens.search_image:,}; response at "
        f"most {room.max_response_length:,}",
        f"memory of one device while it learns: {_listed(memory.update)}",
        f"memory of one device while it generates: {_listed(memory.rollout)}",
    ]
    if memory.cache_tokens is not None:
        lines.append(
            f"the engine's share holds {memory.engine_weights:.1f} GB of weights and "
            f"{max(memory.cache_tokens, 0):,} tokens of cache"
        )
    return [*lines, *_last_lines(memory.host, memory.complaint)]


def describe_learning(config: DictConfig) -> list[str]:
    """Say what a cold start will need, a line each."""
    data, path = config.data, config.model.path
    shape = model_shape(path)
    if shape is None:
        return [_unknown(path)]
    num_tokens = (
        data.max_token_len_per_gpu
        if data.use_dynamic_bsz
        else data.micro_batch_size_per_gpu * data.max_length
    )
    needs = estimate_learning(shape, config.model, config.engine, config.trainer, num_tokens)
    complaint = _too_much(sum(needs.update.values()), config.seg.gpu_gb)
    host = config.trainer.n_gpus_per_node * needs.host
    return [
        f"memory of one device while it learns: {_listed(needs.update)}",
        *_last_lines(host, complaint),
    ]


def _unknown(path: str) -> str:
    return f"no estimate: the shape of {path} is not known here; name a checkpoint folder"


def _last_lines(host_gb: float, complaint: str | None) -> list[str]:
    kept = [f"kept in the memory of each node: {host_gb:.1f} GB"] if host_gb else []
    return [*kept, f"WARNING: {complaint}"] if complaint else kept


def _listed(parts: Mapping[str, float]) -> str:
    return f"{sum(parts.values()):.1f} GB = " + " + ".join(
        f"{name} {value:.1f}" for name, value in parts.items() if value
    )
