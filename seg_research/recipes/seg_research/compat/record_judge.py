"""Recorded rollouts of Seg-ReSearch, ours or the original authors', judged by one definition of its
rewards and explained by the other where they differ.

Where a line does not hold the annotated steps of its question, guidance cannot be computed. Records
of the original give it away all the same: their process score is half of guidance + tapering where
there are steps, guidance being 0 or 1, and the format where there are none. A single line can fit
both; which one holds is a question's, so all its lines decide together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from seg_research.recipes.record_judge import OTHER_SETTINGS, JudgedRollout, ValueSource, differ
from seg_research.recipes.seg_research.compat import disagreement_reasons as reasons
from seg_research.recipes.seg_research.compat.terms import RecordedTruth, ValidationIoU
from seg_research.recipes.seg_research.compat.text import count_search_tags, decoded_response
from seg_research.recipes.seg_research.final_answer import count_searches, read_verdict
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.records.rollouts import Rollout
from seg_research.rewards.rubric import PaidWhen, Rubric, Score, TermRole
from seg_research.rewards.similarity import TextEncoder

_EXACT = 1e-6
"""How near a recorded number must be to what it would be with, or without, steps."""

FROM_STEPS = ValueSource("steps", "computed from the annotated steps")
RECOVERED = ValueSource("recovered", "recovered from the recorded process score")
UNKNOWN = ValueSource(
    None, "without a value: the question has no annotated steps, or they are not known"
)

Values: TypeAlias = Mapping[str, float | None]
"""What one definition gives for one rollout: its terms, `process`, `num_search` and `score`."""


@dataclass(slots=True)
class _Question:
    """Whether all lines of a question so far fit one that has steps, and one that has none."""

    fits_steps: bool = True
    fits_no_steps: bool = True


class SegResearchJudge:
    """Judges by one mode of the rewards.

    It is made for one file: what it learns of questions in `survey` it applies in `judge`.
    """

    def __init__(self, mode: Mode, rubrics: Mapping[Mode, Rubric]) -> None:
        """Judge by `mode`; there is a rubric for each."""
        self._mode, self._rubrics = mode, rubrics
        self._compat = {term.name: term.score for term in rubrics[Mode.COMPAT].terms}
        self._questions: dict[int, _Question] = {}

    def survey(self, rollout: Rollout) -> None:
        """Note whether the recorded process score fits a question with steps, or without."""
        process = _recorded_process(rollout)
        if process is None or rollout.truth is None or not self._can_recover:
            return
        named = {
            name: self._compat[name](rollout.transcript, rollout.truth)
            for name in ("tapering", "format")
        }
        question = self._questions.setdefault(_key(rollout), _Question())
        question.fits_steps &= _solve_guidance(process, named["tapering"]) is not None
        question.fits_no_steps &= abs(process - (named["format"] or 0.0)) < _EXACT

    @property
    def _can_recover(self) -> bool:
        return {"tapering", "format", "guidance"} <= self._compat.keys()

    def judge(self, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
        """Judge some rollouts together."""
        episodes = [(rollout.transcript, rollout.truth) for rollout in rollouts]
        scores = zip(*(self._rubrics[mode].score_many(episodes) for mode in Mode), strict=True)
        return [
            self._judge(rollout, dict(zip(Mode, both, strict=True)))
            for rollout, both in zip(rollouts, scores, strict=True)
        ]

    def _judge(self, rollout: Rollout, scores: Mapping[Mode, Score]) -> JudgedRollout:
        guidance, source = self._find_guidance(rollout, scores[Mode.COMPAT])
        values = {
            mode: _values(mode, self._rubrics[mode], rollout, scores[mode], guidance)
            for mode in Mode
        }
        found = dict(values[self._mode])
        score, process = found.pop("score"), found.pop("process")
        counts = {"num_search": found.pop("num_search")}
        return JudgedRollout(
            terms=found,
            sums={"process": process},
            counts=counts,
            score=score,
            explain=partial(self._explain, rollout, values),
            sources={"guidance": source},
        )

    def _find_guidance(self, rollout: Rollout, original: Score) -> tuple[float | None, ValueSource]:
        """Return guidance where it is known without the steps, and where its value comes from."""
        if rollout.truth is not None and rollout.truth.steps:
            return None, FROM_STEPS
        process = _recorded_process(rollout)
        question = self._questions.get(_key(rollout))
        if process is None or question is None:
            return None, UNKNOWN
        if not question.fits_steps or question.fits_no_steps:
            return None, UNKNOWN
        return _solve_guidance(process, original.terms.get("tapering")), RECOVERED

    def _explain(self, rollout: Rollout, values: Mapping[Mode, Values], name: str) -> str:
        recorded = rollout.recorded[name]
        if name == "score":
            only_iou = rollout.recorded.get("acc") == recorded
            return reasons.VALIDATION if only_iou else OTHER_SETTINGS
        other = values[Mode.ROBUST if self._mode is Mode.COMPAT else Mode.COMPAT]
        if rollout.truth is None or differ(recorded, other.get(name)):
            return reasons.EDITED if rollout.is_foreign else OTHER_SETTINGS
        return reasons.reason_between(
            name, rollout.transcript, rollout.truth, values[Mode.ROBUST], values[Mode.COMPAT]
        )


def make_judge(
    mode: Mode, settings: RewardSettings, encoder: TextEncoder | None = None
) -> SegResearchJudge:
    """Make a judge of these settings; the compat definition knows no dense terms."""
    by_mode = {Mode.ROBUST: settings, Mode.COMPAT: replace(settings, dense=False)}
    rubrics = {
        each: build_rubric(replace(chosen, mode=each), encoder) for each, chosen in by_mode.items()
    }
    return SegResearchJudge(mode, rubrics)


def _recorded_process(rollout: Rollout) -> float | None:
    """Return the process score of a line that does not say what steps its question has."""
    return None if rollout.knows_steps else rollout.recorded.get("process")


def _key(rollout: Rollout) -> int:
    """Tell questions apart; lines of the original have no id."""
    truth = rollout.truth
    recorded = str(truth.recorded) if isinstance(truth, RecordedTruth) else ""
    asked = "\n".join(message.plain() for message in rollout.transcript.prompt)
    return hash((rollout.transcript.sample_id, asked, recorded))


def _solve_guidance(process: float, tapering: float | None) -> float | None:
    """Solve the process score of a question with steps for guidance; None where it does not fit."""
    if tapering is None:
        return None
    guidance = 2 * process - tapering
    return next((bit for bit in (0.0, 1.0) if abs(guidance - bit) < 2 * _EXACT), None)


def _values(
    mode: Mode, rubric: Rubric, rollout: Rollout, score: Score, guidance: float | None
) -> Values:
    """Lay out what a rubric says; a `guidance` that is known without its steps joins the process
    part.
    """
    num_search = (
        count_search_tags(decoded_response(rollout.transcript))
        if mode is Mode.COMPAT
        else count_searches(rollout.transcript)
    )
    terms = dict(score.terms)
    if score.total is None or rollout.truth is None:
        return {**terms, "process": None, "num_search": num_search, "score": None}
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
    total = (score.outcome or 0.0) + process
    return {**terms, "process": process, "num_search": num_search, "score": total}
