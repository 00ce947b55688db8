"""How often experts of the mini benchmark make mistakes on purpose: a model that imitates them
leaves reinforcement learning something to improve.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MistakeRates:
    """How often an episode has a mistake; each is a probability.

    Attributes:
        no_search: guesses instead of searching.
        half_search: guesses after the first of several searches.
        wrong_search: looks for something else first.
        extra_search: searches once more when all is known, or although the video is enough.
    """

    no_search: float
    half_search: float
    wrong_search: float
    extra_search: float


NO_MISTAKES = MistakeRates(no_search=0, half_search=0, wrong_search=0, extra_search=0)
IN_PRETRAINING = MistakeRates(no_search=0.3, half_search=0.3, wrong_search=0, extra_search=0.25)
IN_DEMONSTRATIONS = MistakeRates(
    no_search=0.4, half_search=0.35, wrong_search=0.1, extra_search=0.2
)
"""Imitated last: afterwards the sampled episodes search less than questions need, while the most
probable turn is mostly right.
"""
