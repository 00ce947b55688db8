"""Make the tiny Qwen3-VL: train its tokenizer, initialise it, and warm it up on demonstrations played against the real search server.

The result is an ordinary checkpoint folder. A finished folder is left as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from seg_research.core.errors import UsageError

EXAMPLES = """examples:
  seg-research model --data outputs/mini/train_6_64_64.parquet --text outputs/mini/local_KB/text_corpus.jsonl --out outputs/tiny
  seg-research model --data outputs/mini/train_6_64_64.parquet --search-url http://127.0.0.1:8765 --steps 400 --out outputs/tiny_longer
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--data", type=Path, required=True, metavar="PARQUET", help="prepared training samples")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="checkpoint folder to write")
    parser.add_argument("--text", type=Path, metavar="JSONL", help="corpus for a search server started just for this")
    parser.add_argument("--images", type=Path, metavar="JSONL", help="image corpus for the same")
    parser.add_argument("--search-url", metavar="URL", help="a running search server instead")
    parser.add_argument("--steps", type=int, default=400, help="warm-up steps; 0 leaves the weights as initialised (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")


def run(options: argparse.Namespace) -> int:
    """Make the model."""
    if (options.out / "config.json").is_file():
        print(f"{options.out} is already there; delete it to make it again")
        return 0
    if options.steps < 0 or options.threads < 1:
        raise UsageError(f"--steps {options.steps} --threads {options.threads}: expected 0 or more steps, 1 or more threads")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UsageError(f"--out {options.out}: is there but holds no model; choose another folder or delete it")
    from seg_research.cli.search_server import search_server
    from seg_research.datasets.parquet import check_paths, read_samples

    samples = read_samples(options.data)
    check_paths(samples)
    with search_server(options.search_url, options.text, options.images) as url:
        asyncio.run(_make(options, [s for s in samples if s.truth and s.truth.frames], url))
    print(f"the model is in {options.out}")
    return 0


async def _make(options: argparse.Namespace, samples: list[Any], url: str) -> None:
    import torch
    from tqdm import tqdm

    from seg_research.models.processor import load_processor
    from seg_research.models.tiny import TinySize, build_model, build_tokenizer, save_tiny
    from seg_research.recipes.settings import tiny_settings
    from seg_research.search.client import SearchClient
    from seg_research.training.warmup import WarmupSettings, demonstrate, read_corpus, train

    torch.set_num_threads(options.threads)
    settings, how = tiny_settings(), WarmupSettings(steps=options.steps, seed=options.seed)
    size = TinySize()
    tokenizer = build_tokenizer(read_corpus(samples, how), size.vocab)
    model = build_model(tokenizer, size, options.seed)
    staged = options.out.parent / f".{options.out.name}"
    save_tiny(model, tokenizer, staged)
    processor = load_processor(staged)
    if how.steps:
        async with SearchClient(url) as client:
            tools = settings.build_recipe().build_tools(client, settings.view)
            with tqdm(total=len(samples) * how.variants, unit="episode", desc="demonstrations", file=sys.stderr) as bar:

                def advance() -> None:
                    bar.update()

                examples = await demonstrate(samples, settings, tools, processor, how, advance)
        with tqdm(total=how.steps, unit="step", desc="warm-up", file=sys.stderr) as bar:

            def progress(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()

            loss = train(model, examples, processor, how, progress)
        print(f"warm-up: {how.steps} steps on {len(examples)} demonstrations, loss {loss:.3f}")
    save_tiny(model, tokenizer, staged)
    settings.save(staged)
    staged.rename(options.out)
