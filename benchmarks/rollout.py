"""The agent loop under load: verl's own worker class runs `SegAgentLoop` against a policy of fixed
latency and a live search server.

Real: verl's worker, server client and load balancer (Ray), the processor with Qwen3-VL's picture
sizes (six frames of 448 px, key frames of 864 px, found pictures of 256 px), the search server and
the sentence encoder in processes of their own, rewards, and what verl makes of an episode for its
trainer (pixels of all pictures, positions). Not real: the policy is a Ray actor that waits and says
an expert's turns, and what verl would store in its queue is thrown away.

An episode's time falls into waiting for the policy, for the search server, and the rest, which is
the loop: what it computes, and what its episodes wait for each other on this machine's cores. All
episodes run in one process; verl spreads them over `agent.num_workers` of these: with the 8 of
`hardware=8x80g`, each carries 64 when 512 are under way.

How slow the policy is decides how many episodes a second the loop must carry: at 512 at once, as
many as 512 divided by an episode's seconds. The defaults are an assumption, not a measurement:
eight GPUs that serve an 8B model to 512 sequences give each 25 tokens a second (1,600 a GPU, what
is left beside reading openings and pictures), and a turn that thinks has 250 tokens, give or take
the half of it. `--turn-tokens 0` counts the expert's own, which are some thirty; such a policy
would say 512 times 25 tokens a second as well, in turns so short that an episode lasts five
seconds.

1, 16, 128 and 512 episodes at once, some ten minutes; one of 8 processes that carry 512 between
them, five minutes; whether memory stays flat:

    python benchmarks/rollout.py
    python benchmarks/rollout.py --at-once 64 --episodes 256
    python benchmarks/rollout.py --at-once 512 --episodes 2048

Longer than 400 lines because Ray sends to its workers what stands in this script itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

from seg_research.recipes.seg_research.turns import answer_turn, expert_turns, search_turn

# Before torch, Ray and verl are imported, and as the launcher sets them.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "VERL_PLATFORM": "cpu"}
os.environ |= {
    "VERL_USE_EXTERNAL_MODULES": "seg_research.training.plugin",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}
os.environ |= {
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
# on a loaded machine
os.environ |= {"THP_MEM_ALLOC_ENABLE": "1", "RAY_raylet_start_wait_time_s": "300"}

import numpy as np
import psutil
import ray
import verl  # noqa: F401  imports our plugin
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from retrieval_server.server import running_server
from seg_research.data.preparation import Preparation
from seg_research.data.prepare import prepare as prepare_split
from seg_research.data.readers import okvos
from seg_research.data.rows import read_rows, read_samples
from seg_research.data.sample import Sample
from seg_research.data.splits import Split
from seg_research.episode.transcript import IMAGE_PLACEHOLDER, Message, Text
from seg_research.mini.tiny_model import TinySize, build_model, build_tokenizer, save_tiny
from seg_research.mini.writer import MiniSizes, write_mini
from seg_research.policies.processor import load_processor
from seg_research.recipes.seg_research.actions import SearchKind
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.search.client import SearchClient
from seg_research.tools.show_frame import ShowFrameTool
from seg_research.training.launch.config import compose_config
from seg_research.training.rollout.agent_loop import SegAgentLoop
from seg_research.training.rollout.conversation import VerlConversation
from seg_research.training.rollout.dataset import FRAMES_KEY
from seg_research.training.rollout.scoring import EpisodeScorer
from seg_research.training.run_contract import AGENT_NAME, VALIDATION_KEY

GROUP = 8
"""Rollouts of one prompt, as published."""
Worker: Any = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class


RECIPE = SegResearch()


def user_text(sample: Sample) -> str:
    """Return a sample's question as the policy reads it."""
    frames = [(frame.frame_id, Text(IMAGE_PLACEHOLDER)) for frame in sample.offered]
    return Message("user", RECIPE.user_parts(sample.question, frames)).plain()


class Expert:
    """The policy server: an actor without weights, told apart from a real one by nothing but what
    it says.
    """

    def __init__(self, model: Path, train_file: Path, options: argparse.Namespace) -> None:
        self._tokenizer = load_processor(model).tokenizer
        self._start = self._tokenizer.convert_tokens_to_ids("<|im_start|>")
        self._samples = {self._shown(user_text(s)): s for s in read_samples(train_file)}
        self._options, self._number, self._lengths = options, count(), random.Random(0)

    @staticmethod
    def _shown(user_text: str) -> str:
        return user_text.replace("<image>", "").strip()

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        starts = [place for place, token in enumerate(prompt_ids) if token == self._start]
        text = (
            self._tokenizer.decode(prompt_ids[starts[1] : starts[2]], skip_special_tokens=True)
            .removeprefix("user\n")
            .strip()
        )
        said = self._tokenizer.encode(
            self._turn(self._samples[text], len(starts) // 2 - 1), add_special_tokens=False
        )
        ids = [*said, self._tokenizer.eos_token_id][: sampling_params["max_tokens"]]
        mean = self._options.turn_tokens
        counted = self._lengths.uniform(mean / 2, mean * 1.5) if mean else len(ids)
        waited_s = (self._options.first_token_ms + self._options.token_ms * counted) / 1e3
        await asyncio.sleep(waited_s)
        extra = {"global_steps": 0, "s": waited_s}
        return TokenOutput(
            token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=extra
        )

    def _turn(self, sample: Sample, number: int) -> str:
        turns = expert_turns(sample)
        if number < len(turns) - 2:
            kind = SearchKind.IMAGE if number % 2 else SearchKind.TEXT
            mark = next(self._number)
            share = self._options.new_queries
            new = f" (attempt {mark})" if mark * share % 1 + share >= 1 else ""
            return search_turn(
                sample.steps[number] + new,
                "this is not to be seen in the frames, so it has to be looked up",
                kind,
            )
        return turns[number]


@dataclass
class Clock:
    """Seconds by part of an episode, summed over episodes."""

    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    statuses: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    cached: int = 0
    searches: int = 0

    def awaited(self, owner: Any, name: str, part: str) -> None:
        """Time a coroutine method."""
        inner: Callable[..., Awaitable[Any]] = getattr(owner, name)

        @functools.wraps(inner)
        async def timed(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return await inner(*given, **named)
            finally:
                self.parts[part] += time.perf_counter() - started

        setattr(owner, name, timed)


clock = Clock()


async def _drop_put(key: str, partition_id: str, tag: dict[str, Any], **_: Any) -> None:
    clock.statuses[tag["status"]] += 1


async def _drop_batch(
    keys: list[str], fields: Any, tags: list[dict[str, Any]], partition_id: str
) -> None:
    clock.tokens += sum(tag["seq_len"] for tag in tags)


def install_clock() -> None:
    """Time the parts of an episode where they are called; drop what verl would store."""
    agent_loop_tq.tq.init = lambda *_, **__: None
    agent_loop_tq.tq.async_kv_put, agent_loop_tq.tq.async_kv_batch_put = _drop_put, _drop_batch
    clock.awaited(Worker, "_run_agent_loop", "episode")
    clock.awaited(Worker, "_agent_loop_postprocess", "for verl")
    clock.awaited(VerlConversation, "open", "opening")
    clock.awaited(VerlConversation, "observe", "observation")
    clock.awaited(VerlConversation, "generate", "generate")
    clock.awaited(ShowFrameTool, "run", "key frame")
    clock.awaited(SearchClient, "search", "search")
    clock.awaited(EpisodeScorer, "score", "score")
    clock.awaited(SegAgentLoop, "run", "run")
    ask, search = LLMServerClient.generate, SearchClient.search

    async def asked(self: Any, *given: Any, **named: Any) -> Any:
        output = await ask(self, *given, **named)
        clock.parts["policy"] += output.extra_fields.pop("s")
        return output

    async def searched(self: Any, *given: Any, **named: Any) -> Any:
        found = await search(self, *given, **named)
        clock.searches, clock.cached = clock.searches + 1, clock.cached + found.cached
        return found

    LLMServerClient.generate, SearchClient.search = asked, searched  # type: ignore[method-assign]


def prepare(folder: Path, num_questions: int, frame_px: int) -> tuple[Path, Path]:
    """Write questions, and a model whose tokenizer and processor alone are used, with Qwen3-VL's
    measures. Return (model, train file).
    """
    root, model = folder / "mini", folder / "model"
    if not root.exists():
        write_mini(root, seed=3, sizes=MiniSizes(train=num_questions, val=4, test=4))
    train_file = root / f"train_6_{frame_px}_{frame_px}.parquet"
    for split in (Split.TRAIN, Split.VAL):
        square = Preparation(split, max_size_px=frame_px, min_size_px=frame_px, patch_factor=32)
        prepare_split(okvos.SPEC, root, square)
    if not model.exists():
        samples = read_samples(train_file)
        corpus = [
            RECIPE.system_text(with_search=True),
            *(turn for sample in samples for turn in expert_turns(sample)),
        ]
        corpus += [user_text(sample) for sample in samples]
        corpus += [
            json.loads(line)["contents"]
            for line in (root / "local_KB" / "text_corpus.jsonl").read_text().splitlines()
        ]
        tokenizer = build_tokenizer(
            [*corpus, *(answer_turn(t, "") for s in samples for t in _targets(s))], 2_000
        )
        save_tiny(build_model(tokenizer, TinySize(vocab=2_000), seed=0), tokenizer, model)
        for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
            look = json.loads((model / name).read_text())
            (model / name).write_text(
                json.dumps(
                    look
                    | {
                        "patch_size": 16,
                        "size": {"shortest_edge": 1_024, "longest_edge": 16_777_216},
                    }
                )
            )
    return model, train_file


def _targets(sample: Sample) -> Iterator[Any]:
    for target in () if sample.truth is None else sample.truth.targets:
        yield from target.frames.values()


@contextmanager
def worker_of(
    model: Path, train_file: Path, search_url: str, run_dir: Path, options: argparse.Namespace
) -> Iterator[Any]:
    """Start Ray, the policy and verl's load balancer; give verl's worker, in this process."""
    values = {
        "data.train_files": train_file,
        "data.val_files": train_file.with_name(train_file.name.replace("train", "val")),
        "data.max_prompt_length": 4096,
        "data.max_response_length": 8192,
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.rollout.n": GROUP,
        "seg.run_dir": run_dir,
        "seg.search.url": search_url,
        # A machine that is busy with something else makes episodes slow here, and does not end
        # them.
        "seg.search.deadline_s": 300,
        "seg.episode.brief_prompt": "false",
        "seg.episode.limits": (
            "{max_tool_calls: 6, max_faults: 2, max_turn_tokens: 4096, reserve_tokens: 256}"
        ),
        "seg.episode.view": f"{{keyframe_px: {options.keyframe_px}, search_image_px: 256}}",
    }
    config = compose_config([f"{key}={value}" for key, value in values.items()])
    config.actor_rollout_ref.rollout.agent.agent_loop_config_path = None
    _agent_loop_registry["seg_research"] = {
        "_target_": f"{SegAgentLoop.__module__}.{SegAgentLoop.__qualname__}"
    }
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        actor: Any = ray.remote(Expert)
        expert = actor.options(num_cpus=0, max_concurrency=4096).remote(model, train_file, options)
        balancer: Any = ray.remote(GlobalRequestLoadBalancer)
        client = LLMServerClient(config, balancer.options(num_cpus=0).remote({"expert": expert}))
        yield Worker(config, client)
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Memory:
    """Of this process, in MB: its own, and what it shares, which is libraries and all it has ever
    touched of Ray's object store.
    """

    own: float
    shared: float

    @classmethod
    def now(cls) -> Memory:
        """Measure."""
        found: Any = psutil.Process().memory_info()
        return cls((found.rss - found.shared) / 1e6, found.shared / 1e6)


@dataclass(frozen=True)
class Load:
    """What so many episodes were like."""

    num: int
    at_once: int
    wall_s: float
    cpu_s: Mapping[str, float]
    memory: tuple[Memory, ...]
    late_ms: tuple[float, float]
    clock: Clock


async def load(worker: Any, prompts: Iterator[dict[str, Any]], num: int, at_once: int) -> Load:
    """Keep so many episodes under way until all have ended; groups of one prompt, but for a single
    episode at a time.
    """
    global_clock_reset()
    group = min(GROUP, at_once)
    places, memory, late = asyncio.Semaphore(at_once // group), [Memory.now()], [0.0]
    num_groups = num // group

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            late.append(time.perf_counter() - before - 0.01)

    async def one(prompt: dict[str, Any], number: int) -> None:
        async with places:
            about = {"step": 0, "sample_index": number, "rollout_n": 0, "validate": False}
            await worker._run_prompt(
                {**prompt, "__rollout_n__": group},
                {"temperature": 1.0, "top_p": 1.0, "top_k": -1},
                about,
            )
        if (number + 1) % max(1, num_groups // 8) == 0:
            memory.append(Memory.now())

    watcher = asyncio.create_task(watch())
    wall, cpu = time.perf_counter(), cpu_seconds()
    await asyncio.gather(
        *(
            one({**next(prompts), "uid": f"{at_once}-{number}"}, number)
            for number in range(num_groups)
        )
    )
    wall_s = time.perf_counter() - wall
    spent = {name: seconds - cpu.get(name, 0.0) for name, seconds in cpu_seconds().items()}
    watcher.cancel()
    if clock.statuses["failure"]:
        raise SystemExit(
            f"{clock.statuses['failure']} of {num_groups} groups failed; see the log above"
        )
    return Load(
        num_groups * group,
        at_once,
        wall_s,
        spent,
        tuple(memory),
        (float(np.mean(late)) * 1e3, max(late) * 1e3),
        clock,
    )


def global_clock_reset() -> None:
    """Begin to count anew."""
    clock.parts.clear()
    clock.statuses.clear()
    clock.tokens = clock.cached = clock.searches = 0


def cpu_seconds() -> dict[str, float]:
    """Return what each process of this run has computed so far, by name, and the event loop's part
    of this one.
    """
    spent: dict[str, float] = defaultdict(float)
    spent["worker"], spent["event loop"] = time.process_time(), time.thread_time()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            command = " ".join(process.cmdline())
            spent[next((name for mark, name in OTHERS.items() if mark in command), "Ray")] += (
                times.user + times.system
            )
    return spent


OTHERS = {
    "ray::Expert": "policy's stand-in",
    "ray::EncoderService": "sentence encoder",
    "retrieval_server": "search server",
}


PARTS = ("opening", "observation", "key frame", "score", "for verl")


def show(line: str) -> None:
    """Print at once: a round takes a while."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(found: Load) -> None:
    """Print two lines: the rates, and where an episode's time went."""
    parts, num = found.clock.parts, found.num
    episode_s = parts["episode"] / num
    policy, search = parts["policy"] / parts["episode"], parts["search"] / parts["episode"]
    cpu_ms = {name: seconds / num * 1e3 for name, seconds in found.cpu_s.items()}
    worker_ms, loop_ms = cpu_ms.pop("worker"), cpu_ms.pop("event loop")
    per_s = num / found.wall_s
    rates = f"{per_s:.1f} | {found.clock.tokens / found.wall_s:,.0f} | {episode_s:.2f} s"
    cost = (
        f"{worker_ms:.0f} ({loop_ms:.0f}) ms | {worker_ms / episode_s / 10:.2f} % | "
        f"{worker_ms / 1e3 * per_s:.2f}"
    )
    show(
        f"| {found.at_once} | {num} | {rates} | {policy:.1%} | {search:.1%} | "
        f"{1 - policy - search:.1%} | {cost} |"
    )
    named = {
        "waiting on generate": parts["generate"] - parts["policy"],
        **{name: parts[name] for name in PARTS},
    }
    shares = ", ".join(f"{name} {seconds / num * 1e3:.0f}" for name, seconds in named.items())
    rest = parts["episode"] - parts["policy"] - parts["search"] - sum(named.values())
    cached = found.clock.cached / max(1, found.clock.searches)
    show(
        f"    ms of an episode: {shares}, other {rest / num * 1e3:.0f}; "
        f"{found.clock.searches / num:.1f} searches, {cached:.0%} cached;"
    )
    show(
        "    CPU ms of an episode in other processes: "
        + ", ".join(f"{name} {ms:.0f}" for name, ms in cpu_ms.items())
        + ";"
    )
    own, shared = (
        " → ".join(f"{getattr(at, name):.0f}" for at in found.memory) for name in ("own", "shared")
    )
    show(
        f"    event loop late by {found.late_ms[0]:.1f} ms, at most {found.late_ms[1]:.0f}; "
        f"load {os.getloadavg()[0]:.1f};"
    )
    show(f"    MB: {own}; shared {shared}")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--at-once",
        type=int,
        nargs="+",
        default=[1, 16, 128, 512],
        help="episodes; above 8 a multiple of 8",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=2048,
        help="of each round, at most 4 times and at least as many as at once",
    )
    parser.add_argument(
        "--first-token-ms", type=float, default=500.0, help="the policy's latency a turn"
    )
    parser.add_argument("--token-ms", type=float, default=40.0, help="and a token")
    parser.add_argument(
        "--turn-tokens",
        type=float,
        default=250.0,
        help="tokens that a turn counts for on average; 0: as many as it has",
    )
    parser.add_argument(
        "--new-queries", type=float, default=0.5, help="share of queries that nobody asked before"
    )
    parser.add_argument(
        "--questions",
        type=int,
        default=256,
        help="different ones; a prompt's frames are on one's own if there are enough",
    )
    parser.add_argument(
        "--frame-px",
        type=int,
        default=448,
        help="side of the frames of the opening; a multiple of 32",
    )
    parser.add_argument(
        "--keyframe-px", type=int, default=864, help="side of key frames; a multiple of 32"
    )
    parser.add_argument("--folder", type=Path, help="keep the questions here")
    return parser.parse_args()


def main() -> None:
    """Measure every number of episodes at once."""
    options = parse_options()
    install_clock()
    with tempfile.TemporaryDirectory() as temporary:
        model, train_file = prepare(
            options.folder or Path(temporary), options.questions, options.frame_px
        )
        knowledge = train_file.parent / "local_KB"
        prompts = cycle(
            {
                **row,
                "agent_name": AGENT_NAME,
                "raw_prompt": [],
                "global_steps": 0,
                FRAMES_KEY: row["images"],
                VALIDATION_KEY: False,
            }
            for row in read_rows(train_file)
        )
        with (
            running_server(
                knowledge / "text_corpus.jsonl", knowledge / "image_corpus.jsonl"
            ) as url,
            worker_of(model, train_file, url, Path(temporary) / "run", options) as worker,
        ):
            asyncio.run(rounds(worker, prompts, options))


async def rounds(
    worker: Any, prompts: Iterator[dict[str, Any]], options: argparse.Namespace
) -> None:
    """Run one round after the other on one event loop, as verl's worker does."""
    await load(worker, prompts, GROUP, GROUP)  # imports, connections, the sentence encoder
    show(
        "| at once | episodes | episodes/s | tokens/s | one takes | policy | search | loop | "
        "CPU (event loop) | of its time | cores |"
    )
    show("|---|---|---|---|---|---|---|---|---|---|---|")
    for at_once in options.at_once:
        report(
            await load(worker, prompts, max(at_once, min(4 * at_once, options.episodes)), at_once)
        )


if __name__ == "__main__":
    main()
