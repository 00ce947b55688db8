"""Make the tiny Qwen3-VL: train its tokenizer, initialise it, and teach it, in one of two ways.

With --data, a minute's warm-up on demonstrations played against the real search server: a model that can try. With --lessons, an hour of
lessons in reading, seeing and pointing on one CPU core: the base model of examples/train/mini/coldstart.sh. The result is an ordinary
checkpoint folder. A finished folder is left as it is; killed lessons go on where they stopped.
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
  seg-research model --lessons 900 --threads 1 --out outputs/mini_coldstart/base
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--data", type=Path, metavar="PARQUET", help="prepared training samples")
    how.add_argument("--lessons", type=int, metavar="STEPS", help="teach by lessons, which need no data, for so many steps")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="checkpoint folder to write")
    parser.add_argument("--text", type=Path, metavar="JSONL", help="corpus for a search server started just for this")
    parser.add_argument("--images", type=Path, metavar="JSONL", help="image corpus for the same")
    parser.add_argument("--search-url", metavar="URL", help="a running search server instead")
    parser.add_argument("--steps", type=int, default=400, help="warm-up steps; 0 leaves the weights as initialised (default 400)")
    parser.add_argument("--sight", type=int, default=450, metavar="STEPS", help="steps before, that only open the eyes (default 450)")
    parser.add_argument("--clips", type=int, default=2750, metavar="N", help="clips that lessons show (default 2750, five minutes to draw)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that draw them (default 1)")
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
    if options.lessons is not None:
        if min(options.lessons, options.clips, options.workers) < 1:
            raise UsageError("--lessons, --clips and --workers: expected 1 or more")
        _teach(options)
        print(f"the model is in {options.out}")
        return 0
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


def _teach(options: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from seg_research.core.files import atomic_path
    from seg_research.datasets.mini.lessons.clips import draw_clips
    from seg_research.datasets.mini.lessons.vocabulary import corpus
    from seg_research.models.head_start import give_head_start
    from seg_research.models.tiny import COLD_START, build_model, build_tokenizer, save_tiny
    from seg_research.recipes.settings import tiny_settings
    from seg_research.training.lessons import TeachSettings, teach
    from seg_research.training.sight import teach_sight

    torch.set_num_threads(options.threads)
    staged = options.out.parent / f".{options.out.name}"
    staged.mkdir(parents=True, exist_ok=True)
    with tqdm(total=options.clips, unit="clip", desc="clips", file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.update()

        clips = draw_clips(options.clips, staged / "clips.pickle", options.workers, advance)
    how = TeachSettings(steps=options.lessons, seed=options.seed)
    tokenizer = build_tokenizer(corpus(options.seed), COLD_START.vocab)
    model = build_model(tokenizer, COLD_START, options.seed)
    give_head_start(model, tokenizer, options.seed)
    opened = staged / "sight.pt"
    if opened.is_file():
        model.load_state_dict(torch.load(opened, weights_only=True))
    else:
        with tqdm(total=options.sight, unit="step", desc="sight", file=sys.stderr) as bar:

            def look(step: int, figures: dict[str, float]) -> None:
                bar.set_postfix({name: f"{figure:.2f}" for name, figure in figures.items()}, refresh=False)
                bar.update()

            teach_sight(model, tokenizer, steps=options.sight, seed=options.seed, progress=look)
        with atomic_path(opened) as temporary:
            torch.save(model.state_dict(), temporary)
    with tqdm(total=how.steps, unit="step", desc="lessons", file=sys.stderr) as bar:

        def report(step: int, losses: dict[str, float]) -> None:
            bar.set_postfix({subject: f"{loss:.2f}" for subject, loss in losses.items()}, refresh=False)
            bar.update(step - bar.n)

        teach(model, tokenizer, clips, how, staged / "lessons.pt", report)
    for name in ("clips.pickle", "sight.pt", "lessons.pt"):
        (staged / name).unlink(missing_ok=True)
    save_tiny(model, tokenizer, staged)
    tiny_settings().save(staged)
    staged.rename(options.out)
