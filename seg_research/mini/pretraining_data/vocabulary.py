"""Text from which the tokenizer of the tiny model is trained: everything that a training example or
an episode says, and many names.
"""

from __future__ import annotations

from collections.abc import Iterator

from seg_research.episode.action import FormatFault
from seg_research.mini.pretraining_data.passage_qa import passage_qa
from seg_research.mini.pretraining_data.training_example import (
    SplitRandom,
    any_look,
    any_name,
    request,
    system,
)
from seg_research.recipes.seg_research.actions import FaultKind
from seg_research.recipes.seg_research.recipe import SegResearch

_EPISODES, _REPEATS = 1500, 800
_REQUESTS = (
    "only red thing",
    "only kite",
    "largest thing",
    "smallest thing",
    "red kite",
    "thing that travels with the emblem of",
)


def corpus(seed: int) -> Iterator[str]:
    """Yield texts; equal seeds give equal texts."""
    rng = SplitRandom(seed)
    for _ in range(_EPISODES):
        yield passage_qa(rng, 1200).text
        yield (
            f"{any_name(rng)} {any_name(rng)} {any_name(rng)} other {any_look(rng).words} only with"
        )
        yield request(f"the {rng.choice(_REQUESTS)}") + request(
            f"the other thing with the {rng.choice(['colour', 'shape'])} of the emblem of"
        )
        number = rng.randrange(106)
        yield (
            f"frame {number} </thinking>\n<keyframe> {number} </keyframe> Frame {number} in "
            "high resolution: from left to right"
        )
        yield '</thinking>\n<answer> {"bbox_2d": [20, 40, 60, 80], "point_2d": [20, 40]} </answer>'
    fault = SegResearch().grammar.fault_text(
        FormatFault(FaultKind.NO_ACTION, "no <search>, <keyframe> or <answer> block was found")
    )
    for _ in range(_REPEATS):
        yield f"{system()} Nothing was found. {fault}"
