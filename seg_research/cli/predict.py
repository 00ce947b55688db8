"""Run a policy over a prepared benchmark and write predictions.jsonl.

Killed at any moment, the same command goes on where it stopped; a finished one does nothing. Greedy
by default.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from seg_common.arguments import at_least, number
from seg_common.errors import UsageError
from seg_common.registry import find_attribute

if TYPE_CHECKING:
    from seg_research.data.sample import Sample
    from seg_research.episode.policy import Policy
    from seg_research.evaluation.predict import PredictionCount
    from seg_research.recipes.settings import EpisodeSettings

EXAMPLES = """examples:
  seg-research predict --model outputs/tiny --data outputs/mini/test_4_64_64.parquet \\
      --text outputs/mini/local_KB/text_corpus.jsonl --out outputs/tiny_test/predictions.jsonl
  seg-research predict --model Qwen/Qwen3-VL-4B-Instruct \\
      --data data/OK_VOS/test_6_448_448.parquet --search-url http://127.0.0.1:8100 \\
      --out outputs/qwen/predictions.jsonl
  seg-research predict --scripted expert --data outputs/mini/test_4_64_64.parquet \\
      --text outputs/mini/local_KB/text_corpus.jsonl --out outputs/expert/predictions.jsonl
"""


SCRIPTED = {
    "expert": "seg_research.policies.scripted:expert",
    "noisy_expert": "seg_research.mini.noisy_expert:noisy_expert",
    "hostile": "seg_research.policies.scripted:hostile",
}
"""Policies without a model: functions of a recipe and a seed, imported when they are asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PARQUET",
        help="prepared samples (seg-research data, examples/data_preprocess)",
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", metavar="WHERE", help="folder or hub id of a Qwen-VL checkpoint")
    who.add_argument(
        "--scripted",
        type=_scripted_name,
        metavar="NAME",
        help=(
            "a policy without a model: expert (knows the truth), noisy_expert (reads what it finds "
            "and makes mistakes; mini only), hostile (tries to break things), or your own as "
            "package.module:FUNCTION"
        ),
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="JSONL",
        help="predictions.jsonl to write or continue",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FOLDER",
        help="folder with episode.json to use instead of the model's own",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="recipe of a scripted policy, or package.module:Class; a model brings its own",
    )
    _add_search_arguments(parser)
    parser.add_argument(
        "--rollouts", type=at_least(1), default=1, metavar="N", help="rollouts of each sample"
    )
    parser.add_argument("--temperature", type=number(), default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument(
        "--group-size",
        type=at_least(1),
        default=16,
        metavar="N",
        help="rollouts generated together",
    )
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N samples")
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads of the model")
    parser.add_argument(
        "--timings", action="store_true", help="add wall-clock seconds to each line"
    )


_SEARCH_OPTIONS = {
    "top_k_text": "passages shown of a search",
    "top_k_images": "images shown of a search",
    "body_chars": "characters shown of a title or passage",
    "page_chars": "characters shown of a page",
}


def _add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what changes the search settings that come with the model."""
    parser.add_argument("--search-url", metavar="URL", help="a running search server")
    parser.add_argument(
        "--text",
        type=Path,
        metavar="JSONL",
        help="corpus for a search server started just for this run",
    )
    parser.add_argument("--images", type=Path, metavar="JSONL", help="image corpus for the same")
    parser.add_argument(
        "--browse",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="have the pages of web results read; as the model's settings say unless given",
    )
    parser.add_argument(
        "--deadline-s",
        type=number(),
        metavar="S",
        help="for one search; as the model's settings say unless given",
    )
    for name, meaning in _SEARCH_OPTIONS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option,
            type=at_least(1),
            metavar="N",
            help=f"{meaning}; as the model's settings say unless given",
        )


def _with_options(settings: EpisodeSettings, options: argparse.Namespace) -> EpisodeSettings:
    """Return the settings with those of the command line in place of the model's."""
    names = ("browse", "deadline_s", *_SEARCH_OPTIONS)
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if options.text or options.search_url:
        given["url"] = options.search_url
    return replace(settings, search=replace(settings.search, **given))


def _scripted_name(text: str) -> str:
    if text not in SCRIPTED and ":" not in text:
        raise argparse.ArgumentTypeError(
            f"{text}: expected one of {', '.join(SCRIPTED)}, or package.module:FUNCTION"
        )
    return text


def run(options: argparse.Namespace) -> int:
    """Predict."""
    from seg_research.cli.search_server import search_server
    from seg_research.data.rows import check_paths, read_samples
    from seg_research.evaluation.predict import claim
    from seg_research.policies.processor import find_policy_folder
    from seg_research.recipes.registry import DEFAULT_RECIPE, find_recipe, load_settings

    if options.model:
        options.model = find_policy_folder(options.model)
    samples = read_samples(options.data)[: options.limit]
    check_paths(samples)
    folder = options.settings or options.model
    if folder and options.recipe:
        raise UsageError(f"--recipe {options.recipe}: {folder} brings its own; leave it out")
    stored = load_settings(folder) if folder else None
    default = stored or find_recipe(options.recipe or DEFAULT_RECIPE).settings
    settings = _with_options(default, options)
    identity = _identity(options, settings)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    num_rollouts = len(samples) * options.rollouts
    if len(claim(options.out, identity)) >= num_rollouts:
        print(f"{num_rollouts} predictions in {options.out} (all there already)")
        return 0
    with (
        search_server(settings.search.url, options.text, options.images) as url,
        tqdm(total=num_rollouts, unit="rollout", desc="predict", file=sys.stderr) as bar,
    ):
        count = asyncio.run(_predict(options, samples, settings, identity, url, bar.update))
    print(
        f"{count.total} predictions in {options.out} ({count.written} new, {count.failed} failed)"
    )
    if count.failed:
        print(
            "some episodes were ended by a failing service; "
            "run the same command again to retry them",
            file=sys.stderr,
        )
    return 1 if count.failed else 0


def _identity(options: argparse.Namespace, settings: EpisodeSettings) -> dict[str, Any]:
    """Collect what shapes the result, down to what is generated together."""
    from seg_research.evaluation.predict import fingerprint

    return {
        "policy": options.scripted or fingerprint(options.model),
        "data": fingerprint(options.data),
        "settings": settings.without_address(),
        **({"texts": fingerprint(Path(settings.texts))} if settings.texts else {}),
        "temperature": options.temperature,
        "seed": options.seed,
        "limit": options.limit,
        "rollouts": options.rollouts,
        "group size": options.group_size,
    }


async def _predict(
    options: argparse.Namespace,
    samples: Sequence[Sample],
    settings: EpisodeSettings,
    identity: dict[str, Any],
    url: str,
    progress: Callable[[int], object],
) -> PredictionCount:
    from seg_research.evaluation.predict import PredictionRun, predict
    from seg_research.recipes.registry import build_recipe
    from seg_research.search.client import SearchClient

    recipe = build_recipe(settings)
    search = replace(settings.search, url=url)
    async with SearchClient.of(search) as client:
        run = PredictionRun(
            recipe,
            recipe.connect(client),
            _policy_maker(options, settings),
            identity,
            num_rollouts=options.rollouts,
            group_size=options.group_size,
            timings=options.timings,
        )
        return await predict(run, samples, options.out, progress)


def _policy_maker(
    options: argparse.Namespace, settings: EpisodeSettings
) -> Callable[[int], Policy]:
    from seg_research.recipes.registry import build_recipe

    recipe = build_recipe(settings)
    if options.scripted:
        name: str = options.scripted
        place = SCRIPTED.get(name, name)
        policy = find_attribute(place, FunctionType, "scripted policy")(recipe, options.seed)
        return lambda group: policy
    import torch

    from seg_research.core.seeding import derive_seed
    from seg_research.policies.chat_tokens import ChatTokens
    from seg_research.policies.engine import Sampling, TransformersEngine
    from seg_research.policies.processor import load_processor
    from seg_research.policies.transformers_policy import LocalPolicy
    from seg_research.policies.turn_barrier import TurnBarrier

    torch.set_num_threads(options.threads)
    processor = load_processor(options.model)
    engine = TransformersEngine.load(options.model, processor)
    sampling = Sampling(options.temperature, stop_strings=recipe.grammar.stop_strings)
    chat = ChatTokens(processor)

    def make(group: int) -> LocalPolicy:
        lockstep = TurnBarrier(
            engine,
            lambda turn: torch.manual_seed(  # pyright: ignore[reportUnknownMemberType]
                derive_seed(options.seed, "predict", group, turn)
            ),
        )
        return LocalPolicy(chat, lockstep, settings.limits, sampling, settings.max_prompt_tokens)

    return make
