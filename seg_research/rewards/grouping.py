"""From the rewards of one prompt's rollouts to their advantages, without the accidents of group
normalisation (findings B5b).

Dividing by a tiny standard deviation makes a fourth decimal of a term that is paid per step as loud
as a right answer: groups that agree in outcome then teach to take more steps, and to answer never.
Here the standard deviation has a floor, and two orders hold in every group: at equal outcome,
whoever answers never loses to whoever does not; at equal outcome and equal other terms, fewer paid
steps never lose. What a term is called means nothing here.

Arrays: N rollouts of one group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_common.errors import UsageError
from seg_research.rewards.rubric import RewardBreakdown

_OUTCOME_DIGITS = 6
"""Outcomes that agree so far are equal."""
_EPSILON = 1e-6
"""What published GRPO adds to the standard deviation."""

Floats: TypeAlias = NDArray[np.float64]


class Scale(StrEnum):
    """By what deviations from the group's mean are divided."""

    FLOOR = "floor"
    """The unbiased standard deviation, but no less than `GroupSettings.std_floor`."""
    NONE = "none"
    """Nothing (Dr. GRPO, arXiv:2503.20783)."""
    PUBLISHED = "published"
    """The unbiased standard deviation + 1e-6; a lone rollout keeps its reward (GRPO as verl has
    it).
    """


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How advantages are made.

    Attributes:
        std_floor: of `Scale.FLOOR`, in units of reward.
        min_outcome_spread: groups whose outcomes lie closer together than this (greatest minus
            least) teach nothing; 0 keeps all.
        per_term: scale every term by itself before they are added up, so that none drowns another
            (GDPO, arXiv:2601.05242).
        level_per_step: raise each term that is paid per step to the greatest among the rollouts of
            equal outcome with at least as many of those steps.
        answers_first: an unanswered rollout gets no greater advantage than any answered one of at
            least its outcome.
    """

    scale: Scale = Scale.FLOOR
    std_floor: float = 0.2
    min_outcome_spread: float = 0.0
    per_term: bool = False
    level_per_step: bool = True
    answers_first: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.std_floor < math.inf:
            raise UsageError(
                f"groups: std_floor={self.std_floor}: expected a number above 0; "
                "scale=none divides by nothing"
            )
        if not 0 <= self.min_outcome_spread < math.inf:
            raise UsageError(
                f"groups: min_outcome_spread={self.min_outcome_spread}: "
                "expected 0 (keep all groups) or more"
            )


PUBLISHED = GroupSettings(Scale.PUBLISHED, level_per_step=False, answers_first=False)
"""GRPO as the original trains with it."""


def group_advantages(group: Sequence[RewardBreakdown | None], settings: GroupSettings) -> Floats:
    """Return the advantages (N,) of one group; None is a rollout that an infrastructure failure
    ended: it gets 0 and moves no baseline.
    """
    advantages = np.zeros(len(group))
    scored = [index for index, earned in enumerate(group) if earned is not None]
    members = [earned for earned in group if earned is not None]
    if members and outcome_spread(members) >= settings.min_outcome_spread:
        advantages[scored] = _advantages(members, settings)
    return advantages


def outcome_spread(group: Sequence[RewardBreakdown | None]) -> float:
    """Greatest minus least outcome of the scored rollouts of a group; 0 where none is scored."""
    outcomes = [round(earned.outcome, _OUTCOME_DIGITS) for earned in group if earned is not None]
    return max(outcomes) - min(outcomes) if outcomes else 0.0


def _advantages(group: Sequence[RewardBreakdown], settings: GroupSettings) -> Floats:
    names = sorted(set[str]().union(*(earned.paid for earned in group)))
    columns = {name: np.array([earned.paid.get(name, 0.0) for earned in group]) for name in names}
    if settings.level_per_step:
        for name in columns.keys() & group[0].counts.keys():
            columns[name] = _level(name, columns[name], group)
    terms = list(columns.values()) or [np.zeros(len(group))]
    rewards = terms if settings.per_term else [np.sum(terms, axis=0)]
    advantages: Floats = np.sum([_scaled(reward_N, settings) for reward_N in rewards], axis=0)
    return _put_answers_first(advantages, group) if settings.answers_first else advantages


def _scaled(reward_N: Floats, settings: GroupSettings) -> Floats:
    lone = len(reward_N) == 1
    std = 0.0 if lone else float(np.std(reward_N, ddof=1))
    match settings.scale:
        case Scale.NONE:
            return reward_N - reward_N.mean()
        case Scale.FLOOR:
            return (reward_N - reward_N.mean()) / max(std, settings.std_floor)
        case Scale.PUBLISHED:
            return (
                reward_N / (1 + _EPSILON)
                if lone
                else (reward_N - reward_N.mean()) / (std + _EPSILON)
            )


def _level(name: str, term_N: Floats, group: Sequence[RewardBreakdown]) -> Floats:
    """Among rollouts of equal outcome that answered alike, give each the greatest of those with at
    least as many steps of a term.
    """
    outcome_N = np.array([round(earned.outcome, _OUTCOME_DIGITS) for earned in group])
    answered_N = np.array([earned.answered for earned in group])
    steps_N = np.array([earned.counts[name] for earned in group])
    alike_NN = (
        (outcome_N[:, None] == outcome_N)
        & (answered_N[:, None] == answered_N)
        & (steps_N[:, None] <= steps_N)
    )
    return np.where(alike_NN, term_N, -np.inf).max(axis=1)


def _put_answers_first(advantage_N: Floats, group: Sequence[RewardBreakdown]) -> Floats:
    """Cap each unanswered rollout at the least of the answered ones of at least its outcome."""
    outcomes = [round(earned.outcome, _OUTCOME_DIGITS) for earned in group]
    answered = [index for index, earned in enumerate(group) if earned.answered]
    capped_N = advantage_N.copy()
    for index, earned in enumerate(group):
        if not earned.answered:
            above = [advantage_N[i] for i in answered if outcomes[i] >= outcomes[index]]
            capped_N[index] = min([advantage_N[index], *above])
    return capped_N
