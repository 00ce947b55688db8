"""Imperfect experts for the tiny model to imitate: right most of the time, wrong in the ways that reinforcement learning should mend."""

from __future__ import annotations

import random
from dataclasses import dataclass

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.seeding import derive_seed
from seg_research.datasets.mini.grid import COORDINATE_STEP
from seg_research.datasets.sample import FrameTruth, Sample
from seg_research.policies.scripted import answer_turn, keyframe_turn, search_turn


@dataclass(frozen=True, slots=True)
class Variety:
    """How often a demonstration deviates from the expert; each is a probability.

    Attributes:
        skip_search: answers without looking anything up.
        extra_search: repeats its last search.
        poor_frame: takes any offered frame that shows the target instead of the best one.
        no_thinking: leaves the thought of one turn out, which breaks the format.
        gives_up: ends with a turn that holds no action.
    """

    skip_search: float = 0.2
    extra_search: float = 0.15
    poor_frame: float = 0.5
    no_thinking: float = 0.3
    gives_up: float = 0.3


def demonstration(sample: Sample, rollout: int, seed: int, variety: Variety) -> list[str]:
    """Write the turns of one demonstration; equal arguments give equal turns."""
    assert sample.truth is not None
    rng = random.Random(derive_seed(seed, "demonstration", sample.sample_id, rollout))
    steps = [] if rng.random() < variety.skip_search else list(sample.steps)
    if steps and rng.random() < variety.extra_search:
        steps.append(steps[-1])
    by_area = sorted(sample.truth.frames.items(), key=lambda item: -item[1].max_conn_area)
    frame_id, target = rng.choice(by_area) if rng.random() < variety.poor_frame else by_area[0]
    turns = [search_turn(step, f"find {step}") for step in steps]
    turns.append(keyframe_turn(frame_id, f"frame {frame_id} shows it"))
    turns.append(
        "<thinking> it is not clear </thinking>" if rng.random() < variety.gives_up else answer_turn(on_grid(target), "there it is")
    )
    if rng.random() < variety.no_thinking:
        index = rng.randrange(len(turns))
        turns[index] = turns[index].partition("</thinking>\n")[2] or turns[index]
    return turns


def on_grid(target: FrameTruth) -> FrameTruth:
    """Round a target's coordinates to the grid that the tiny tokenizer holds as single tokens; the box keeps an area."""
    step = COORDINATE_STEP

    def near(value: float) -> int:
        return round(value / step) * step

    x1, y1 = (min(near(v), 1000 - step) for v in (target.box.x1, target.box.y1))
    x2, y2 = max(near(target.box.x2), x1 + step), max(near(target.box.y2), y1 + step)
    point = Norm1000Point(near(target.point.x), near(target.point.y))
    return FrameTruth(Norm1000Box(x1, y1, x2, y2), point, target.area, target.max_conn_area)
