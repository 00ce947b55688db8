"""Guidance of recorded rollouts whose lines do not hold the annotated steps of their question.

Records of the original give it away: their process score is half of guidance + tapering where the
question has steps, guidance being 0 or 1, and the format where it has none. A single line can fit
both (an empty rollout has a process score of 0 either way). Whether there are steps is a matter of
the question, so all its lines decide together; where they leave it open, or contradict each other,
guidance stays unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from seg_research.recipes.seg_research.compat.terms import RecordedTruth
from seg_research.records.rollouts import Rollout
from seg_research.rewards.rubric import Rubric

_EXACT = 1e-6
"""How near a recorded number must be to what it would be with steps, or without."""


@dataclass(slots=True)
class _Evidence:
    """Whether all lines of a question so far fit one that has steps, and one that has none."""

    fits_steps: bool = True
    fits_no_steps: bool = True


class RecoveredGuidance:
    """What the lines of one file tell; `survey` sees all of them before `find` is asked."""

    def __init__(self, original: Rubric) -> None:
        """Take the original's definitions; without its three process terms nothing is recovered."""
        terms = {term.name: term.score for term in original.terms}
        self._terms = terms if {"guidance", "tapering", "format"} <= terms.keys() else {}
        self._questions: dict[int, _Evidence] = {}

    def survey(self, rollout: Rollout) -> None:
        """Note whether the recorded process score fits a question with steps, or without."""
        process, truth = _recorded_process(rollout), rollout.truth
        if process is None or truth is None or not self._terms:
            return
        tapering, well_formed = (
            self._terms[name](rollout.transcript, truth) for name in ("tapering", "format")
        )
        question = self._questions.setdefault(_key(rollout), _Evidence())
        question.fits_steps &= _solve(process, tapering) is not None
        question.fits_no_steps &= abs(process - (well_formed or 0.0)) < _EXACT

    def find(self, rollout: Rollout, tapering: float | None) -> float | None:
        """Return guidance; None where the question has no steps, or may have none."""
        process, question = _recorded_process(rollout), self._questions.get(_key(rollout))
        if process is None or question is None:
            return None
        has_steps = question.fits_steps and not question.fits_no_steps
        return _solve(process, tapering) if has_steps else None


def _recorded_process(rollout: Rollout) -> float | None:
    """Return the process score of a line that does not say what steps its question has."""
    return None if rollout.knows_steps else rollout.recorded.get("process")


def _key(rollout: Rollout) -> int:
    """Tell questions apart; lines of the original have no id."""
    truth = rollout.truth
    recorded = str(truth.recorded) if isinstance(truth, RecordedTruth) else ""
    asked = "\n".join(message.plain() for message in rollout.transcript.prompt)
    return hash((rollout.transcript.sample_id, asked, recorded))


def _solve(process: float, tapering: float | None) -> float | None:
    """Solve the process score of a question with steps for guidance; None where it does not fit."""
    if tapering is None:
        return None
    guidance = 2 * process - tapering
    return next((bit for bit in (0.0, 1.0) if abs(guidance - bit) < _EXACT), None)
