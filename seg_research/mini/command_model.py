"""Get the tiny Qwen3-VL of the mini benchmark: a copy of the packaged one, or one trained from
nothing but a seed.

Training one takes most of an hour on a CPU core: first the image encoder learns what it sees, then
the whole model learns to read, to point and to play episodes (docs/mini.md). The result is an
ordinary checkpoint folder. A finished folder is left as it is; a killed run continues where it
stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_common.arguments import at_least
from seg_common.errors import UsageError
from seg_research.mini import COLD_START

if TYPE_CHECKING:
    from seg_research.mini.pretraining_data.clips import Clip

EXAMPLES = """examples:
  seg-research model --out outputs/tiny
  seg-research model --pretrain 1300 --threads 1 --out outputs/mini_coldstart/base
"""

_CLIPS, _GROUNDED, _PRETRAINED = "clips.pickle", "grounding.pt", "pretraining.pt"
"""What a killed run continues from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="checkpoint folder to write"
    )
    parser.add_argument(
        "--pretrain",
        type=at_least(1),
        metavar="STEPS",
        help="train a new one for so many steps; the options below are about this",
    )
    parser.add_argument(
        "--grounding",
        type=at_least(1),
        default=450,
        metavar="STEPS",
        help="steps before those, in which image tokens learn what they show",
    )
    parser.add_argument(
        "--clips",
        type=at_least(1),
        default=2750,
        metavar="N",
        help="clips that training examples show (2750 take ten minutes to draw)",
    )
    parser.add_argument(
        "--workers", type=at_least(1), default=1, metavar="N", help="processes that draw them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads")


def run(options: argparse.Namespace) -> int:
    """Copy or train the model."""
    if (options.out / "config.json").is_file():
        print(f"{options.out} is already there; delete it to make it again")
        return 0
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UsageError(
            f"--out {options.out}: is there but holds no model; choose another folder or delete it"
        )
    staged = options.out.parent / f".{options.out.name}"
    if options.pretrain is None:
        shutil.copytree(COLD_START, staged, dirs_exist_ok=True)
    else:
        _train(options, staged)
    staged.rename(options.out)
    print(f"the model is in {options.out}")
    return 0


def _train(options: argparse.Namespace, staged: Path) -> None:
    import torch

    from seg_research.mini.induction_init import write_induction_circuit
    from seg_research.mini.pretraining_data.vocabulary import corpus
    from seg_research.mini.tiny_model import COLD_START, build_model, build_tokenizer, save_tiny
    from seg_research.mini.tiny_settings import tiny_settings

    torch.set_num_threads(options.threads)
    staged.mkdir(parents=True, exist_ok=True)
    clips = _draw_clips(options, staged / _CLIPS)
    tokenizer = build_tokenizer(corpus(options.seed), COLD_START.vocab)
    model = build_model(tokenizer, COLD_START, options.seed)
    write_induction_circuit(model, tokenizer, options.seed)
    _pretrain_grounding(options, model, tokenizer, staged / _GROUNDED)
    _pretrain(options, model, tokenizer, clips, staged / _PRETRAINED)
    for name in (_CLIPS, _GROUNDED, _PRETRAINED):
        (staged / name).unlink(missing_ok=True)
    save_tiny(model, tokenizer, staged)
    tiny_settings().save(staged)


def _draw_clips(options: argparse.Namespace, store: Path) -> list[Clip]:
    from tqdm import tqdm

    from seg_research.mini.pretraining_data.clips import draw_clips

    with tqdm(total=options.clips, unit="clip", desc="clips", file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.update()

        return draw_clips(options.clips, store, options.workers, advance)


def _pretrain_grounding(
    options: argparse.Namespace, model: Any, tokenizer: Any, store: Path
) -> None:
    import torch
    from tqdm import tqdm

    from seg_common.files import atomic_path
    from seg_research.mini.grounding_pretraining import pretrain_grounding

    if store.is_file():
        model.load_state_dict(torch.load(store, weights_only=True))
        return
    with tqdm(total=options.grounding, unit="step", desc="grounding", file=sys.stderr) as bar:

        def report(step: int, figures: dict[str, float]) -> None:
            bar.set_postfix_str(_listed(figures), refresh=False)
            bar.update()

        pretrain_grounding(
            model, tokenizer, steps=options.grounding, seed=options.seed, progress=report
        )
    with atomic_path(store) as temporary:
        torch.save(model.state_dict(), temporary)


def _pretrain(
    options: argparse.Namespace, model: Any, tokenizer: Any, clips: list[Clip], store: Path
) -> None:
    from tqdm import tqdm

    from seg_research.mini.curriculum import PretrainingSettings, pretrain

    settings = PretrainingSettings(steps=options.pretrain, seed=options.seed)
    with tqdm(total=settings.steps, unit="step", desc="pretraining", file=sys.stderr) as bar:

        def report(step: int, losses: dict[str, float]) -> None:
            bar.set_postfix_str(_listed(losses), refresh=False)
            bar.update(step - bar.n)

        pretrain(model, tokenizer, clips, settings, store, report)


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={number:.2f}" for name, number in numbers.items())
