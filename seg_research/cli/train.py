"""Train a policy with GRPO or DAPO: stock verl underneath, configured by Hydra overrides.

Every override is KEY=VALUE; groups are recipe, model, hardware, rollout, algorithm, search and
logger. All paths and settings are checked before anything starts. A killed run goes on from its
last checkpoint when the same command is given again; a finished one does nothing. How to train on
your own data, with your own tool or reward, and on several nodes: docs/training.md.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from seg_common.arguments import Parser
from seg_research.cli.overrides import add_override_arguments, check_overrides, show_origins
from seg_research.cli.progress import show_step

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLES = """examples:
  seg-research train recipe=seg_research hardware=cpu --dry-run \\
      actor_rollout_ref.model.path=outputs/tiny \\
      data.train_files=outputs/mini/train_4_64_64.parquet \\
      data.val_files=outputs/mini/val_4_64_64.parquet \\
      seg.search.text=outputs/mini/local_KB/text_corpus.jsonl
  seg-research train hardware=cpu seg.run_dir=outputs/grpo trainer.total_training_steps=12 \\
      actor_rollout_ref.model.path=outputs/tiny \\
      data.train_files=outputs/mini/train_4_64_64.parquet \\
      data.val_files=outputs/mini/val_4_64_64.parquet \\
      seg.search.text=outputs/mini/local_KB/text_corpus.jsonl
  seg-research train hardware=8x80g model=qwen3vl_4b rollout=vllm \\
      search=server seg.search.url=http://HOST:8100 \\
      data.train_files=data/OK_VOS/train_6_448_448.parquet \\
      data.val_files=data/OK_VOS/val_6_448_448.parquet
  seg-research train hardware=8x80g model=qwen3vl_8b rollout=vllm algorithm=dapo --dry-run \\
      search=server seg.search.url=http://HOST:8100 \\
      data.train_files=data/OK_VOS/train_6_448_448.parquet \\
      data.val_files=data/OK_VOS/val_6_448_448.parquet
  seg-research train hardware=8x80g model=qwen3vl_4b rollout=vllm \\
      search=serper seg.search.cache_file=searches.sqlite seg.search.max_usd_per_run=20 \\
      data.train_files=data/OK_VOS/train_6_448_448.parquet \\
      data.val_files=data/OK_VOS/val_6_448_448.parquet
"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_override_arguments(
        parser, "hardware=cpu trainer.total_training_steps=12", "tokens and memory"
    )


def run(options: argparse.Namespace) -> int:
    """Train, or say what would be trained."""
    check_overrides(options.overrides, "train")
    from seg_research.training.launch.checks import check_run
    from seg_research.training.launch.config import compose_config
    from seg_research.training.launch.estimate import describe
    from seg_research.training.launch.origins import origins

    config = compose_config(options.overrides)
    samples = check_run(config)
    needs = describe(config, samples)
    if options.dry_run:
        show_origins(
            origins(config, options.overrides),
            [*needs, f"{len(samples)} training samples; every path exists."],
        )
        return 0
    return _train(config)


def _train(config: DictConfig) -> int:
    from seg_research.cli.search_server import search_server, web_options
    from seg_research.training.launch.checks import check_engine
    from seg_research.training.launch.launcher import finished_policy, launch

    policy = finished_policy(config)
    if policy:
        print(f"this run is finished; its policy is in {policy}")
        return 0

    check_engine(config)
    total, search = config.trainer.total_training_steps, config.seg.search
    server = search_server(
        search.url, search.text, search.images, web_options(search, run_name=config.seg.run_dir)
    )
    with server as url, tqdm(total=total, unit="step", desc="train", file=sys.stderr) as bar:

        def progress(step: int, metrics: dict[str, float]) -> None:
            reward = metrics.get("critic/score/mean", float("nan"))
            tokens = metrics.get("response_length/mean", 0)
            show_step(bar, step, {"reward": f"{reward:.3f}", "tokens": f"{tokens:.0f}"})

        policy = launch(config, url, progress)
    print(f"the trained policy is in {policy}")
    return 0
