"""Recorded rollouts, ours or of the original authors, back as what the rewards judge: a transcript
and a ground truth.

Key frames of the original's records count as shown where the frame was offered, although most of
those calls failed for a wrong path on its server (findings B5a): that failure says nothing about
the policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import frame_id_of
from seg_research.data.sample import ONLY_TARGET_ID, Target, TargetOnFrame
from seg_research.data.truth_json import mask_from_json
from seg_research.episode.transcript import (
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    Transcript,
)
from seg_research.recipes.seg_research.actions import Answer, Search, SelectKeyframe
from seg_research.recipes.seg_research.compat.terms import RecordedTruth
from seg_research.recipes.seg_research.compat.text import RecordedTranscript
from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.recipes.seg_research.prompt import IMAGE_PLACEHOLDER
from seg_research.records.reader import PredictedTurn, Prediction

_ORIGINAL_FIELDS = {
    "iou_score": "box_iou",
    "box_l1_score": "box_l1",
    "point_l1_score": "point",
    "keyframe_score": "keyframe",
    "process_score": "process",
    "acc": "acc",
    "num_search": "num_search",
    "score": "score",
}
_ORIGINAL_STOPS = {
    "max_turns_reached": StopReason.TURN_LIMIT,
    "max_model_len_exceeded": StopReason.TOO_LONG,
}
_CUT_OFF = ("max_response_length", "finish_reason_length")
_BEYOND_SCORES = 1e9


@dataclass(frozen=True, slots=True)
class Rollout:
    """One line of a file of rollouts.

    Attributes:
        truth: None where the line has none.
        knows_steps: the line says what the annotated steps of its question are, if only that there
            are none.
        recorded: what the line says it earned, by our names; the terms that it has.
    """

    transcript: Transcript
    truth: RecordedTruth | None
    knows_steps: bool
    recorded: Mapping[str, float]

    @property
    def is_foreign(self) -> bool:
        """Tell whether the original wrote the line."""
        return isinstance(self.transcript, RecordedTranscript)


def read_rollout(fields: Mapping[str, Any]) -> Rollout:
    """Read one line.

    Raises:
        UsageError: a field is missing or malformed; names the field.
    """
    prediction = Prediction.from_json(fields)
    ours = "schema_version" in fields
    turns = _own_turns(prediction) if ours else _original_turns(prediction, _validities(fields))
    prompt = (Message("user", (Text(prediction.query),)),)
    if ours:
        transcript = Transcript(
            prediction.sample_id, prompt, turns, _own_stop(prediction.stop_reason)
        )
        given = {
            **prediction.rewards,
            "num_search": fields.get("num_search"),
            "score": fields.get("score"),
        }
    else:
        stop = _original_stop(prediction.stop_reason, turns)
        transcript = RecordedTranscript(
            prediction.sample_id, prompt, turns, stop, output=fields["output"]
        )
        given = {name: fields.get(field) for field, name in _ORIGINAL_FIELDS.items()}
    recorded = {name: float(value) for name, value in given.items() if _is_number(value)}
    return Rollout(transcript, _truth(fields), fields.get("steps") is not None, recorded)


def _own_turns(prediction: Prediction) -> tuple[ModelTurn | Observation, ...]:
    turns: list[ModelTurn | Observation] = []
    for turn in prediction.turns:
        if turn.role == "assistant":
            turns.append(_model_turn(turn))
            continue
        try:
            outcome = Outcome(turn.outcome)
        except ValueError:
            raise UsageError(
                f"field 'turns': outcome {turn.outcome!r}, expected one of {', '.join(Outcome)}"
            ) from None
        turns.append(_observation(turn, outcome, _last_action_name(turns)))
    return tuple(turns)


def _original_turns(
    prediction: Prediction, validities: Sequence[bool | None]
) -> tuple[ModelTurn | Observation, ...]:
    offered = {frame_id_of(name) for name in prediction.frame_names}
    calls = iter(validities)
    turns: list[ModelTurn | Observation] = []
    for turn in prediction.turns:
        if turn.role == "assistant":
            turns.append(_model_turn(turn))
            continue
        valid = next(calls, None)
        action = turns[-1].action if turns and isinstance(turns[-1], ModelTurn) else None
        match action:
            case Search():
                outcome = Outcome.REJECTED if valid is False else Outcome.OK
            case SelectKeyframe(frame_id=frame_id):
                outcome = Outcome.OK if not offered or frame_id in offered else Outcome.REJECTED
            case _:
                outcome = Outcome.FAULT
        turns.append(_observation(turn, outcome, _last_action_name(turns)))
    return tuple(turns)


def _model_turn(turn: PredictedTurn) -> ModelTurn:
    parsed = parse_turn(turn.text)
    return ModelTurn(turn.text, parsed.action, parsed.thinking)


def _observation(turn: PredictedTurn, outcome: Outcome, tool: str) -> Observation:
    # The pictures are not at hand; the place where one stood holds no text.
    shown = Message(turn.role, (Text(turn.text.replace(IMAGE_PLACEHOLDER, "")),))
    return Observation(shown, tool, outcome, turn.observation_summary)


def _last_action_name(turns: Sequence[ModelTurn | Observation]) -> str:
    match turns[-1] if turns else None:
        case ModelTurn(action=Search()):
            return "search"
        case ModelTurn(action=SelectKeyframe()):
            return "keyframe"
        case _:
            return "format"


def _validities(fields: Mapping[str, Any]) -> list[bool | None]:
    """Tell of each recorded tool call whether the server took it for valid; None where it does not
    say.
    """
    calls = fields.get("tool_interact_info")
    if not isinstance(calls, list):
        return []
    flags = [
        cast("dict[str, Any]", call).get("valid_action")
        for call in cast("list[object]", calls)
        if isinstance(call, dict)
    ]
    return [bool(flag) if isinstance(flag, int) else None for flag in flags]


def _own_stop(name: str) -> StopReason:
    try:
        return StopReason(name)
    except ValueError:
        raise UsageError(
            f"field 'stop_reason': {name!r}, expected one of {', '.join(StopReason)}"
        ) from None


def _original_stop(name: str, turns: Sequence[ModelTurn | Observation]) -> StopReason:
    """Translate the original's reason; it has no word for an answer."""
    last = turns[-1] if turns else None
    if isinstance(last, ModelTurn) and isinstance(last.action, Answer):
        return StopReason.ANSWERED
    if name.startswith(_CUT_OFF):
        return StopReason.TURN_TRUNCATED
    return _ORIGINAL_STOPS.get(name, StopReason.NO_ACTION)


def _truth(fields: Mapping[str, Any]) -> RecordedTruth | None:
    gts, steps = fields.get("gts"), fields.get("steps") or ()
    if gts is None:
        return None
    try:
        plain: object = json.loads(gts) if isinstance(gts, str) else gts
    except (ValueError, RecursionError) as error:
        raise UsageError(f"field 'gts': not valid JSON ({error})") from None
    if not isinstance(plain, dict) or not all(
        isinstance(frame, dict) for frame in cast("dict[str, object]", plain).values()
    ):
        raise UsageError(
            'field \'gts\': expected {"<frame id>": {"bbox_2d": …, "point_2d": …, "max_conn_area": …}, …}'
        )
    if not isinstance(steps, list | tuple) or not all(
        isinstance(step, str) for step in cast("Sequence[object]", steps)
    ):
        raise UsageError("field 'steps': expected a list of texts")
    recorded = cast("dict[str, dict[str, Any]]", plain)
    if not all(_is_number(frame.get("max_conn_area", 0.0)) for frame in recorded.values()):
        raise UsageError("field 'gts': expected a number as max_conn_area")
    frames = {frame_id_of(name): _frame_truth(frame) for name, frame in recorded.items()}
    usable = {
        frame_id: frame
        for frame_id, frame in frames.items()
        if frame_id is not None and frame is not None
    }
    return RecordedTruth(
        (Target(ONLY_TARGET_ID, usable),),
        tuple(cast("Sequence[str]", steps)),
        fields.get("absent") is True,
        recorded=recorded,
    )


def _frame_truth(frame: Mapping[str, Any]) -> TargetOnFrame | None:
    """Read the target on one frame; None where our types refuse it, as a target that is one pixel
    thin.
    """
    mask = None if frame.get("mask") is None else mask_from_json(frame["mask"], "field 'gts'")
    if mask is not None:
        mask.samples()
    try:
        box, point = Norm1000Box(*frame["bbox_2d"]), Norm1000Point(*frame["point_2d"])
        area = frame.get("max_conn_area", 0.0)
        return (
            TargetOnFrame(box, point, frame.get("area", area), area, mask)
            if 0 <= area <= 1
            else None
        )
    except (KeyError, TypeError, ValueError):
        return None


def _is_number(value: object) -> TypeGuard[float]:
    # A comparison, because math.isfinite cannot take an integer that no float holds.
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < _BEYOND_SCORES
    )
