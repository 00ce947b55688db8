"""Recorded rollouts back as what rewards judge: a transcript and a ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from seg_common.errors import UsageError
from seg_research.data.sample import GroundTruth
from seg_research.episode.action import Action
from seg_research.episode.transcript import (
    IMAGE_PLACEHOLDER,
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    Transcript,
)
from seg_research.records.schema import PredictionRow, TurnRecord
from seg_research.records.truth import truth_from_json

ReadAction = Callable[[Mapping[str, Any]], Action]
"""Rebuilds an action from its JSON form, as `Grammar.read_action` does."""

_BEYOND_SCORES = 1e9


@dataclass(frozen=True, slots=True)
class Rollout:
    """One line of a file of rollouts.

    Attributes:
        truth: None where the line has none.
        knows_steps: the line says what the annotated steps of its question are, if only that there
            are none.
        recorded: what the line says it earned, by our names; the terms that it has.
        is_foreign: another project wrote the line.
    """

    transcript: Transcript
    truth: GroundTruth | None
    knows_steps: bool
    recorded: Mapping[str, float]
    is_foreign: bool


def rollout_of(row: PredictionRow, fields: Mapping[str, Any], read_action: ReadAction) -> Rollout:
    """Return the rollout that a row of ours describes; `fields` is its line.

    Raises:
        UsageError: a field is malformed; names it.
    """
    prompt = (Message("user", (Text(row.query),)),)
    turns = tuple(_turn(turn, read_action) for turn in row.turns)
    transcript = Transcript(row.sample_id, prompt, turns, _stop(row.stop_reason))
    beside_terms = {name: fields.get(name) for name in ("num_search", "score")}
    return Rollout(
        transcript,
        truth_from_json(fields),
        knows_steps=fields.get("steps") is not None,
        recorded=recorded_numbers({**row.rewards, **beside_terms}),
        is_foreign=False,
    )


def observation_of(turn: TurnRecord, outcome: Outcome, tool: str) -> Observation:
    """Return what was shown; its images are not at hand, and the place of one holds no text."""
    shown = Message(turn.role, (Text(turn.text.replace(IMAGE_PLACEHOLDER, "")),))
    return Observation(shown, tool, outcome, turn.summary)


def recorded_numbers(given: Mapping[str, object]) -> dict[str, float]:
    """Return those values that are numbers."""
    return {name: float(value) for name, value in given.items() if _is_number(value)}


def _turn(turn: TurnRecord, read_action: ReadAction) -> ModelTurn | Observation:
    if turn.by_policy:
        if turn.action is None:
            raise UsageError("field 'turns': a turn of the policy has no action")
        return ModelTurn(turn.text, read_action(turn.action), turn.thinking)
    try:
        outcome = Outcome(turn.outcome)
    except ValueError:
        raise UsageError(
            f"field 'turns': outcome {turn.outcome!r}, expected one of {', '.join(Outcome)}"
        ) from None
    return observation_of(turn, outcome, turn.tool)


def _stop(name: str) -> StopReason:
    try:
        return StopReason(name)
    except ValueError:
        raise UsageError(
            f"field 'stop_reason': {name!r}, expected one of {', '.join(StopReason)}"
        ) from None


def _is_number(value: object) -> TypeGuard[float]:
    # A comparison, because math.isfinite cannot take an integer that no float holds.
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < _BEYOND_SCORES
    )
