"""Get the tiny Qwen3-VL that plays the mini benchmark: a copy of the packaged one, or one made anew
from nothing but a seed.

Making one takes most of an hour on a CPU core: lessons in seeing, reading, pointing and playing
(docs/mini.md). The result is an ordinary checkpoint folder. A finished folder is left as it is;
killed lessons go on where they stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from seg_common.arguments import at_least
from seg_common.errors import UsageError
from seg_research.mini import COLD_START

EXAMPLES = """examples:
  seg-research model --out outputs/tiny
  seg-research model --lessons 1300 --threads 1 --out outputs/mini_coldstart/base
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="checkpoint folder to write"
    )
    parser.add_argument(
        "--lessons",
        type=at_least(1),
        metavar="STEPS",
        help="make a new one: steps of lessons; the rest is about these",
    )
    parser.add_argument(
        "--sight",
        type=at_least(1),
        default=450,
        metavar="STEPS",
        help="steps before, that only open the eyes",
    )
    parser.add_argument(
        "--clips",
        type=at_least(1),
        default=2750,
        metavar="N",
        help="clips that lessons show (default 2750, ten minutes to draw)",
    )
    parser.add_argument(
        "--workers", type=at_least(1), default=1, metavar="N", help="processes that draw them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads")


def run(options: argparse.Namespace) -> int:
    """Copy or make the model."""
    if (options.out / "config.json").is_file():
        print(f"{options.out} is already there; delete it to make it again")
        return 0
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UsageError(
            f"--out {options.out}: is there but holds no model; choose another folder or delete it"
        )
    staged = options.out.parent / f".{options.out.name}"
    if options.lessons is None:
        shutil.copytree(COLD_START, staged, dirs_exist_ok=True)
    else:
        _teach(options, staged)
    staged.rename(options.out)
    print(f"the model is in {options.out}")
    return 0


def _teach(options: argparse.Namespace, staged: Path) -> None:
    import torch
    from tqdm import tqdm

    from seg_common.files import atomic_path
    from seg_research.mini.curriculum import TeachSettings, teach
    from seg_research.mini.grounding_pretraining import teach_sight
    from seg_research.mini.induction_init import give_head_start
    from seg_research.mini.pretraining_data.clips import draw_clips
    from seg_research.mini.pretraining_data.vocabulary import corpus
    from seg_research.mini.tiny_model import COLD_START, build_model, build_tokenizer, save_tiny
    from seg_research.recipes.settings import tiny_settings

    torch.set_num_threads(options.threads)
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
                bar.set_postfix(
                    {name: f"{figure:.2f}" for name, figure in figures.items()}, refresh=False
                )
                bar.update()

            teach_sight(model, tokenizer, steps=options.sight, seed=options.seed, progress=look)
        with atomic_path(opened) as temporary:
            torch.save(model.state_dict(), temporary)
    with tqdm(total=how.steps, unit="step", desc="lessons", file=sys.stderr) as bar:

        def report(step: int, losses: dict[str, float]) -> None:
            bar.set_postfix(
                {subject: f"{loss:.2f}" for subject, loss in losses.items()}, refresh=False
            )
            bar.update(step - bar.n)

        teach(model, tokenizer, clips, how, staged / "lessons.pt", report)
    for name in ("clips.pickle", "sight.pt", "lessons.pt"):
        (staged / name).unlink(missing_ok=True)
    save_tiny(model, tokenizer, staged)
    tiny_settings().save(staged)
