"""From a checkpoint of trained adapters to what anybody can load: the PEFT adapter, and the model
with it merged in, both verified.

verl 0.9.1 offers two ways that are not taken. Its `hf_model` checkpoint names the weights as the
wrapped model does, so that transformers finds none of them and goes on with fresh ones; its
`model_merger` rounds to bf16, in which a small update of a large weight is lost, and guesses the
adapted modules from the last part of their names. Everything here is fp32 and stays on the CPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.tensor import DTensor, Shard
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from seg_common.errors import InfraError

logger = logging.getLogger(__name__)

ADAPTER_FOLDER = "adapter"

LOGIT_TOLERANCE = 1e-4
"""Merged, and base with adapter, may differ by this much of the largest logit: fp32 sums in another
order, through all layers.
"""

_PROBE_TEXT = (
    "The quick brown fox jumps over the lazy dog; 17 sphinxes of black quartz judge its vow in "
    "frame 42."
)
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


@dataclass(frozen=True, slots=True)
class LoraReport:
    """What was found as the export was verified: tensors that differ from the base, and logits of a
    probe.
    """

    num_changed: int
    num_adapted: int
    adapter_effect: float
    """Largest difference in logit between base and merged model."""
    merge_error: float
    """Largest difference in logit between base with adapter and merged model."""
    largest_logit: float


def export_lora(checkpoint: Path, base: Path | str, out: Path) -> LoraReport:
    """Write the merged model to `out` and the adapter to `out/adapter`; verify what was written.

    `checkpoint` is verl's folder of the actor, with one file of weights a rank.

    Raises:
        InfraError: the checkpoint has no adapter, or what was written is not base plus adapter.
    """
    trained = adapter_weights(checkpoint)
    model: Any = _load(base)
    before = _digests(model)
    adapted: Any = _with_adapter(
        model,
        trained,
        json.loads((checkpoint / "lora_train_meta.json").read_text(encoding="utf-8")),
    )
    adapted.save_pretrained(out / ADAPTER_FOLDER)
    num_adapted = sum(name.endswith("lora_B.default.weight") for name in trained)
    merged = adapted.merge_and_unload(safe_merge=True)
    merged.save_pretrained(out)
    after = _digests(merged)
    del model, adapted, merged
    return verify_export(out, base, before, after, num_adapted)


def verify_export(
    out: Path,
    base: Path | str,
    base_digests: dict[str, str],
    merged_digests: dict[str, str],
    num_adapted: int,
) -> LoraReport:
    """Load again what was written, and compare it with what was merged, and with the base.

    Raises:
        InfraError: the merged model is not base plus adapter; what differs is named.
    """
    model: Any = _load(base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    ids_BL = torch.tensor([tokenizer.encode(_PROBE_TEXT, add_special_tokens=False)])
    plain = _logits(model, ids_BL)
    wanted = _logits(PeftModel.from_pretrained(model, out / ADAPTER_FOLDER), ids_BL)
    del model
    merged: Any = _load(out)
    found, after = _logits(merged, ids_BL), _digests(merged)
    report = LoraReport(
        num_changed=sum(after.get(name) != digest for name, digest in base_digests.items()),
        num_adapted=num_adapted,
        adapter_effect=_distance(plain, found),
        merge_error=_distance(wanted, found),
        largest_logit=float(wanted.abs().max()),
    )
    _judge(report, out)
    damaged = sorted(
        name
        for name in merged_digests.keys() | after.keys()
        if merged_digests.get(name) != after.get(name)
    )
    if damaged:
        raise InfraError(
            f"LoRA export {out}: {len(damaged)} weights on disk are not those that were merged: "
            f"{damaged[:3]}"
        )
    logger.info("LoRA export verified: %s", report)
    return report


def _judge(report: LoraReport, out: Path) -> None:
    if report.num_changed == 0:
        raise InfraError(
            f"LoRA export {out}: the merged weights are those of the base; the adapters learned "
            "nothing or were not merged"
        )
    if report.num_changed > report.num_adapted:
        raise InfraError(
            f"LoRA export {out}: {report.num_changed} weights changed, but only "
            f"{report.num_adapted} have an adapter"
        )
    allowed = LOGIT_TOLERANCE * max(1.0, report.largest_logit)
    if not report.merge_error <= allowed:
        raise InfraError(
            f"LoRA export {out}: merged model and base with adapter differ by "
            f"{report.merge_error:.2g} in logit, allowed is {allowed:.2g}"
        )


def adapter_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the adapters' weights from a checkpoint of any number of ranks, whole and in fp32, under
    the names of the wrapped model.

    Raises:
        InfraError: there are none, or a rank's file is missing.
    """
    found = {
        int(match[2]): (path, int(match[1]))
        for path in checkpoint.glob("*.pt")
        if (match := _SHARD.fullmatch(path.name))
    }
    world = max((size for _, size in found.values()), default=0)
    if not found or sorted(found) != list(range(world)):
        raise InfraError(
            f"{checkpoint}: found the weights of ranks {sorted(found)}, expected those of "
            f"{world or 'any'}"
        )
    # Our own checkpoint: it holds sharded tensors, which the restricted loader refuses.
    ranks = [
        torch.load(found[rank][0], map_location="cpu", weights_only=False) for rank in range(world)
    ]
    weights = {
        name: _whole([rank[name] for rank in ranks]).float()
        for name in ranks[0]
        if ".lora_" in name
    }
    if not weights:
        raise InfraError(
            f"{checkpoint}: no adapters in this checkpoint; was it trained with lora_rank=0?"
        )
    return weights


def _whole(pieces: list[Any]) -> torch.Tensor:
    """Put the pieces of a tensor together, given in the order of ranks."""
    first = pieces[0]
    if not isinstance(first, DTensor):
        return first
    placement = first.placements[-1]
    local = [piece.to_local() for piece in pieces]
    return torch.cat(local, dim=placement.dim) if isinstance(placement, Shard) else local[0]


def _with_adapter(model: Any, trained: dict[str, torch.Tensor], meta: dict[str, Any]) -> Any:
    """Wrap a model with exactly the adapters that were trained."""
    modules = sorted(
        {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in trained}
    )
    config = LoraConfig(
        r=meta["r"], lora_alpha=meta["lora_alpha"], target_modules=modules, bias="none"
    )
    adapted: Any = get_peft_model(model, config)
    missing, unexpected = adapted.load_state_dict(trained, strict=False)
    absent = [name for name in missing if ".lora_" in name]
    if absent or unexpected:
        raise InfraError(
            f"the checkpoint's adapters do not fit the base model: {[*absent, *unexpected][:3]}"
        )
    return adapted


def _load(folder: Path | str) -> Any:
    disable_progress_bar()
    model: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model.eval()


def _digests(model: Any) -> dict[str, str]:
    """Identify each weight by a digest: two models of this size need not fit into memory."""
    return {
        name: hashlib.sha256(tensor.contiguous().numpy().data).hexdigest()
        for name, tensor in model.state_dict().items()
    }


@torch.no_grad()
def _logits(model: Any, ids_BL: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids_BL, use_cache=False).logits


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())
