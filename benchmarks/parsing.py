"""Parsing and scoring of hostile text: CPU time for doubling sizes up to 1 MB, as ratios. Linear
work doubles (2.0), quadratic quadruples.

Each family of text is one model turn of an episode that goes on to an honest miss. `parse` reads
the turn as an episode does, `robust` and `compat` score the finished transcript with every term.
The fastest of several rounds counts.

    python benchmarks/parsing.py              a minute
    python benchmarks/parsing.py --top 2e6
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from seg_research.data.sample import Sample
from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.testing.attacks import honest_miss, target_of
from seg_research.testing.fakes import WordEncoder, play
from seg_research.testing.samples import draw_sample

UNITS = {
    "<": "<",
    "opening answers": "<answer>",
    "opening thoughts": "<thinking>",
    "closed thoughts": "<thinking></thinking>",
    "thoughts and searches": "<thinking></thinking><search>",
    "empty searches": "<thinking>x</thinking><search></search>",
    "key frames": "<thinking>x</thinking><keyframe>5</keyframe>",
    "answers": '<answer>{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}</answer>',
    "queries that never end": '{"name": "text_search", "query": "',
    "brackets": "[",
    "nested objects": '{"a":',
    "digits": "5",
    "white space": " ",
    "lines": "\n",
    "chat tokens": "<|im_end|>",
    "half chat tokens": "<|im_end|",
    "invisible characters": "\u200b",
    "letters that fold to several": "ﬃ",
}
"""What is repeated up to the size, by the name of the family."""

BODIES = ("<search>", "<answer>", "<keyframe>", "<thinking>")
ROUNDS, SIZES = 3, 5


def in_body(tag: str, text: str) -> str:
    """Put a mass of text inside a block of its own."""
    return f"{tag}{text}{tag.replace('<', '</')}"


def families(size: int) -> dict[str, str]:
    """Return a text of about this size for every family."""
    masses = {name: unit * (size // len(unit)) for name, unit in UNITS.items()}
    bodies = {
        f"{name} in {tag}": in_body(tag, masses[name])
        for name in ("digits", "white space", "brackets", "<")
        for tag in BODIES
    }
    return {**masses, **bodies}


def fastest_s(work: Callable[[], object]) -> float:
    """Return the CPU time of the fastest of several rounds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def transcript_with(sample: Sample, text: str) -> Transcript:
    """Play an honest miss behind one hostile turn."""
    return asyncio.run(play(sample, [text, *honest_miss(target_of(sample))]))


def measure(sample: Sample, top: int) -> dict[str, dict[str, list[float]]]:
    """Return seconds by family and kind of work for sizes that double up to `top`."""
    robust, compat = (
        build_rubric(RewardSettings(mode=mode), WordEncoder())
        for mode in (Mode.ROBUST, Mode.COMPAT)
    )
    found: dict[str, dict[str, list[float]]] = {}
    for size in (top >> step for step in reversed(range(SIZES))):
        for name, text in families(size).items():
            played = transcript_with(sample, text)
            times = found.setdefault(name, {"parse": [], "robust": [], "compat": []})
            times["parse"].append(fastest_s(lambda text=text: parse_turn(text)))
            times["robust"].append(
                fastest_s(lambda played=played: robust.score(played, sample.truth))
            )
            times["compat"].append(
                fastest_s(lambda played=played: compat.score(played, sample.truth))
            )
        print(f"{size:>9,} characters done", file=sys.stderr)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top", type=float, default=1e6, help="characters of the longest texts")
    top = int(parser.parse_args().top)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(draw_sample(Path(folder)), top)
    print(
        f"CPU time by size: ms at {top:,} characters, then its growth per doubling over the "
        f"last {SIZES - 1} doublings (mean)"
    )
    print(
        f"{'family':<32}{'parse ms':>10}{'x':>6}{'robust ms':>11}{'x':>6}{'compat ms':>11}{'x':>6}"
    )
    worst = 0.0
    for name, times in found.items():
        cells = ""
        for kind, width in (("parse", 10), ("robust", 11), ("compat", 11)):
            first, last = times[kind][0], times[kind][-1]
            growth = (last / first) ** (1 / (SIZES - 1)) if first > 0 else 0.0
            # Growth of what takes no time to speak of is noise.
            worst = max(worst, growth if last > 2e-3 else 0.0)
            cells += f"{1000 * last:>{width}.2f}{growth:>6.2f}"
        print(f"{name:<32}{cells}")
    print(f"largest growth per doubling where the last size takes more than 2 ms: {worst:.2f}")


if __name__ == "__main__":
    main()
