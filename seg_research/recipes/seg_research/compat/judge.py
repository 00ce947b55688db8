"""Score recorded rollouts by our definitions or by the original's, and explain by the other where a
recorded number is another one now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from seg_research.recipes.judge import (
    OTHER_SETTINGS,
    SCORE,
    Disagreement,
    Judgement,
    Note,
    Values,
    differ,
    disagreements_between,
)
from seg_research.recipes.seg_research.compat import disagreement_reasons as reasons
from seg_research.recipes.seg_research.compat.recovered_guidance import RecoveredGuidance
from seg_research.recipes.seg_research.compat.terms import ValidationIoU
from seg_research.recipes.seg_research.compat.text import count_search_tags, decoded_response
from seg_research.recipes.seg_research.final_answer import count_searches, read_verdict
from seg_research.recipes.seg_research.grammar import read_action
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.records.reader import read_rollout
from seg_research.records.rollouts import Rollout
from seg_research.rewards.rubric import PaidWhen, Rubric, Score, TermRole
from seg_research.rewards.similarity import TextEncoder

_BESIDE_TERMS = ("process", "num_search", SCORE)


class GuidanceSource(StrEnum):
    """Where the value of the guidance term comes from."""

    STEPS = "steps"
    """Computed from the annotated steps in the line."""
    RECOVERED = "recovered"
    """Recovered from the recorded process score."""


_SOURCES = {
    GuidanceSource.STEPS: "computed from the annotated steps",
    GuidanceSource.RECOVERED: "recovered from the recorded process score",
    None: "without a value: the question has no annotated steps, or they are not known",
}


@dataclass(frozen=True, slots=True)
class TwoDefinitionsJudge:
    """Scores by one definition and explains by the other.

    Attributes:
        mode: the definition that counts.
        rubrics: one for each mode.
        recovered: what the lines of the file tell of guidance.
    """

    mode: Mode
    rubrics: Mapping[Mode, Rubric]
    recovered: RecoveredGuidance

    def read(self, fields: Mapping[str, Any]) -> Rollout:
        """Read a line of ours or of the original."""
        return read_rollout(fields, read_action)

    def survey(self, rollout: Rollout) -> None:
        """Note what a line tells of its question."""
        self.recovered.survey(rollout)

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """Score rollouts together."""
        episodes = [(rollout.transcript, rollout.truth) for rollout in rollouts]
        scores = zip(*(self.rubrics[mode].score_many(episodes) for mode in Mode), strict=True)
        return [
            self._judge(rollout, dict(zip(Mode, both, strict=True)))
            for rollout, both in zip(rollouts, scores, strict=True)
        ]

    def _judge(self, rollout: Rollout, scores: Mapping[Mode, Score]) -> Judgement:
        guidance = source = None
        if rollout.truth is not None and rollout.truth.steps:
            source = GuidanceSource.STEPS
        else:
            guidance = self.recovered.find(rollout, scores[Mode.COMPAT].terms.get("tapering"))
            source = None if guidance is None else GuidanceSource.RECOVERED
        values = {
            mode: _values(mode, self.rubrics[mode], rollout, scores[mode], guidance)
            for mode in Mode
        }
        chosen = values[self.mode]
        return Judgement(
            {name: value for name, value in chosen.items() if name not in _BESIDE_TERMS},
            {name: chosen.get(name) for name in _BESIDE_TERMS},
            tuple(_disagreements(self.mode, rollout, values)),
            {"guidance_source": source},
            Note("guidance", _SOURCES[source]),
        )


def two_definitions(
    mode: Mode, settings: RewardSettings, encoder: TextEncoder | None = None
) -> TwoDefinitionsJudge:
    """Return the judge of one mode. The original has no dense terms, so that its definitions are
    those of the same settings without them.
    """
    chosen = {
        Mode.ROBUST: replace(settings, mode=Mode.ROBUST),
        Mode.COMPAT: replace(settings, mode=Mode.COMPAT, dense=False),
    }
    rubrics = {mode: build_rubric(of_mode, encoder) for mode, of_mode in chosen.items()}
    return TwoDefinitionsJudge(mode, rubrics, RecoveredGuidance(rubrics[Mode.COMPAT]))


def _values(
    mode: Mode, rubric: Rubric, rollout: Rollout, score: Score, guidance: float | None
) -> Values:
    """Lay out what a rubric says; a `guidance` that is known without its steps joins the process
    part.
    """
    compat = mode is Mode.COMPAT
    num_search = (
        count_search_tags(decoded_response(rollout.transcript))
        if compat
        else count_searches(rollout.transcript)
    )
    terms = dict(score.terms)
    if score.total is None or rollout.truth is None:
        return {**terms, "process": None, "num_search": num_search, SCORE: None}
    if "acc" in rollout.recorded:
        terms["acc"] = ValidationIoU()(rollout.transcript, rollout.truth)
    process = 0.0
    for entry in rubric.terms:
        name, is_paid = entry.name, entry.when.applies_to(rollout.truth)
        if guidance is not None:
            is_paid = entry.when is not PaidWhen.WITHOUT_STEPS
            if name == "guidance":
                unpaid = entry.only_answered and read_verdict(rollout.transcript).answer is None
                terms[name] = 0.0 if unpaid else guidance
        value = terms[name]
        if entry.role is TermRole.PROCESS and is_paid and value is not None:
            process += entry.weight * value
    return {
        **terms,
        "process": process,
        "num_search": num_search,
        SCORE: (score.outcome or 0.0) + process,
    }


def _disagreements(
    mode: Mode, rollout: Rollout, values: Mapping[Mode, Values]
) -> list[Disagreement]:
    found, other = values[mode], values[Mode.ROBUST if mode is Mode.COMPAT else Mode.COMPAT]
    truth = rollout.truth
    if found[SCORE] is None or truth is None:
        return []
    changed: list[str] = []

    def reason_of(name: str) -> str:
        if name == SCORE:
            return reasons.reason_of_score(changed, rollout.recorded)
        if name != "num_search":
            changed.append(name)
        if differ(rollout.recorded[name], other.get(name)):
            return reasons.EDITED if rollout.is_foreign else OTHER_SETTINGS
        definitions = values[Mode.ROBUST], values[Mode.COMPAT]
        return reasons.reason_between(name, rollout.transcript, truth, *definitions)

    return disagreements_between(rollout.recorded, found, reason_of)
