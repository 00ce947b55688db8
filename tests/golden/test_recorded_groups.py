"""The recorded groups of the original system, eight rollouts a prompt: the orders that our
advantages keep, and what published ones do.
"""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.records.reader import read_rollout
from seg_research.rewards.grouping import (
    PUBLISHED,
    GroupSettings,
    Scale,
    group_advantages,
)
from seg_research.rewards.rubric import RewardBreakdown

ROLLOUTS = Path(__file__).parents[3] / "shared" / "data" / "rollouts"
SIZE = 8
SETTINGS = [
    GroupSettings(),
    GroupSettings(Scale.NONE),
    GroupSettings(per_term=True),
    GroupSettings(Scale.PUBLISHED),
]

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not ROLLOUTS.is_dir(),
        reason=(
            f"{ROLLOUTS} is not there: the recorded rollouts come with the project's shared folder"
        ),
    ),
]


class Words:
    """Stands in for the sentence encoder: a text is the set of its words, hashed into 64 places."""

    def encode(self, texts):
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.casefold().split() or ["nothing"]:
                row[sum(word.encode()) % 64] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["step_001", "step_020"])
def step(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def lines(step) -> list[dict]:
    return [json.loads(line) for line in (ROLLOUTS / f"{step}.jsonl").read_text().splitlines()]


def groups_of(lines: list[dict], mode: Mode) -> list[list[RewardBreakdown]]:
    """Score the rows; annotated steps are not recorded, so the first three queries of the same
    prompt stand for them.
    """
    queries: dict[str, list[str]] = {}
    for line in lines:
        found = [
            json.loads(call["action"].split("<search>")[1].split("</search>")[0])["query"]
            for call in searches(line)
        ]
        queries.setdefault(line["input"], []).extend(found)
    rollouts = [read_rollout({**line, "steps": queries[line["input"]][:3]}) for line in lines]
    rubric = build_rubric(RewardSettings(mode=mode), Words())
    scores = rubric.score_many([(rollout.transcript, rollout.truth) for rollout in rollouts])
    by_prompt: dict[str, list[RewardBreakdown]] = {}
    for line, rollout, score in zip(lines, rollouts, scores, strict=True):
        earned = rubric.breakdown(rollout.transcript, score)
        assert earned is not None
        by_prompt.setdefault(line["input"], []).append(earned)
    return list(by_prompt.values())


@pytest.fixture(scope="module", params=list(Mode))
def groups(request, lines) -> list[list[RewardBreakdown]]:
    return groups_of(lines, request.param)


@pytest.fixture(scope="module")
def compat_groups(lines) -> list[list[RewardBreakdown]]:
    return groups_of(lines, Mode.COMPAT)


def searches(line: dict) -> list[dict]:
    return [
        call
        for call in line["tool_interact_info"]
        if "</search>" in call["action"] and call["valid_action"]
    ]


def others(one: RewardBreakdown) -> dict[str, float]:
    return {name: paid for name, paid in one.paid.items() if name != "tapering"}


def pairs(group: list[RewardBreakdown], settings: GroupSettings):
    found = group_advantages(group, settings)
    return permutations(zip(group, found, strict=True), 2)


def test_there_are_sixteen_prompts_of_eight(groups):
    assert [len(group) for group in groups] == [SIZE] * 16


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.scale}, per term: {s.per_term}")
def test_whoever_answers_never_loses_at_equal_outcome(groups, settings):
    compared = 0
    for group in groups:
        for (a, mine), (b, theirs) in pairs(group, settings):
            if a.answered and not b.answered and a.outcome >= b.outcome:
                assert mine >= theirs
                compared += 1
    assert compared > 20


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.scale}, per term: {s.per_term}")
def test_fewer_searches_never_lose_at_equal_outcome(groups, settings):
    compared = 0
    for group in groups:
        for (a, mine), (b, theirs) in pairs(group, settings):
            if (
                a.outcome == b.outcome
                and a.answered == b.answered
                and others(a) == others(b)
                and a.counts["tapering"] < b.counts["tapering"]
            ):
                assert mine >= theirs
                compared += 1
    assert compared > 10


def prefers_silence(group: list[RewardBreakdown], settings: GroupSettings) -> bool:
    return any(
        a.answered and not b.answered and a.outcome == b.outcome and mine < theirs
        for (a, mine), (b, theirs) in pairs(group, settings)
    )


def prefers_searching(group: list[RewardBreakdown], settings: GroupSettings) -> bool:
    return any(
        a.answered
        and b.answered
        and a.outcome == b.outcome
        and others(a) == others(b)
        and a.counts["tapering"] < b.counts["tapering"]
        and mine < theirs
        for (a, mine), (b, theirs) in pairs(group, settings)
    )


def test_published_grpo_breaks_both_orders_on_what_the_originals_rubric_pays(compat_groups, step):
    found = [
        sum(wrong(group, PUBLISHED) for group in compat_groups)
        for wrong in (prefers_silence, prefers_searching)
    ]
    assert found == {"step_001": [9, 8], "step_020": [3, 9]}[step]
