"""Cold start: train a model to imitate episodes (multi-turn, images in observations, loss on the
model's own turns) before `train`.

Episodes are files that `seg-research predict` writes, of a strong model or of the scripted expert.
verl's SFT trainer underneath, configured by Hydra overrides; groups are recipe, model, hardware and
logger, the same as for `train`. Everything is checked and encoded before the first step. A killed
run goes on from its last checkpoint when the same command is given again; a finished one does
nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from seg_common.arguments import Parser
from seg_research.cli.overrides import add_override_arguments, check_overrides, show_origins
from seg_research.cli.progress import show_step

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from seg_research.training.sft.prepare import Encoded

EXAMPLES = """examples:
  seg-research predict --scripted expert --settings outputs/tiny \\
      --data outputs/mini/train_4_64_64.parquet \\
      --text outputs/mini/local_KB/text_corpus.jsonl --out outputs/expert/predictions.jsonl
  seg-research sft model=tiny hardware=cpu model.path=outputs/tiny --dry-run \\
      data.train_files=outputs/expert/predictions.jsonl
  seg-research sft model=qwen3vl_8b hardware=8x80g seg.run_dir=outputs/sft_8b \\
      data.train_files=[strong/predictions.jsonl,expert/predictions.jsonl] \\
      seg.sft.min_score=0.8 trainer.total_epochs=2
  seg-research train model=qwen3vl_8b hardware=8x80g rollout=vllm \\
      actor_rollout_ref.model.path=outputs/sft_8b/policy \\
      data.train_files=data/OK_VOS/train_6_448_448.parquet \\
      data.val_files=data/OK_VOS/val_6_448_448.parquet seg.search.url=http://HOST:8100
"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_override_arguments(
        parser, "hardware=cpu trainer.total_epochs=3", "what the episodes hold, and memory"
    )


def run(options: argparse.Namespace) -> int:
    """Train, or say what would be trained."""
    check_overrides(options.overrides, "sft")
    from seg_research.training.launch.estimate import describe_learning
    from seg_research.training.sft.config import (
        check_model,
        check_sft_against_verl,
        compose_sft,
        sft_origins,
    )

    config = compose_sft(options.overrides)
    check_sft_against_verl(config)
    at_hand = check_model(config)
    if not options.dry_run:
        return _train(config)
    remarks = _encode(config)[2] if at_hand else _unread(config)
    show_origins(sft_origins(config, options.overrides), [*remarks, *describe_learning(config)])
    return 0


def _unread(config: DictConfig) -> list[str]:
    from seg_research.training.sft.config import episode_files

    files = [*episode_files(config, "train_files"), *episode_files(config, "val_files")]
    return [
        f"{config.model.path} is not on this machine, so its tokens are not counted; {len(files)}"
        " file(s) of episodes exist."
    ]


def _encode(config: DictConfig) -> tuple[Encoded, Encoded | None, list[str], int]:
    """Read and encode all episodes; return training and validation ones, what to say of them, and
    the number of steps.
    """
    from seg_research.training.sft.config import check_sizes, episode_files, sft_settings
    from seg_research.training.sft.prepare import encode_files, load_any_processor

    processor: Any = load_any_processor(config.model.path)
    found: list[Encoded | None] = []
    remarks: list[str] = []
    for key in ("train_files", "val_files"):
        files = episode_files(config, key)
        if not files:
            found.append(None)
            continue
        with tqdm(unit="episode", desc=f"read {key}", file=sys.stderr) as bar:
            encoded = encode_files(
                files,
                processor,
                sft_settings(config),
                config.data.max_length,
                config.seg.seed,
                bar.update,
            )
        remarks += encoded.describe(key)
        found.append(encoded)
    train, val = found
    assert train is not None
    steps = check_sizes(config, len(train.rows), None if val is None else len(val.rows))
    return (
        train,
        val,
        [*remarks, f"{steps} steps of {config.data.train_batch_size} episodes"],
        steps,
    )


def _train(config: DictConfig) -> int:
    from seg_research.training.sft.launcher import finished_sft, launch_sft

    policy = finished_sft(config)
    if policy:
        print(f"this run is finished; its policy is in {policy}")
        return 0
    train, val, remarks, steps = _encode(config)
    print(*remarks, sep="\n", flush=True)
    with tqdm(total=steps, unit="step", desc="sft", file=sys.stderr) as bar:

        def progress(step: int, metrics: dict[str, float]) -> None:
            losses = {name: metrics.get(name) for name in ("train/loss", "val/loss")}
            known = {name: f"{loss:.4f}" for name, loss in losses.items() if loss is not None}
            show_step(bar, step, known)

        policy = launch_sft(config, train, val, steps, progress)
    print(f"the trained policy is in {policy}")
    return 0
