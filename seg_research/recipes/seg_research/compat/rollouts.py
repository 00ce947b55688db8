"""Rollouts that the original Seg-ReSearch recorded: everything after the prompt is one text with
chat tokens, `output` (specs seg_research §7.2).

Only the policy's turns are parsed: a page that contains an answer is not an answer. A key frame
counts as shown where the frame was offered, although most of those calls failed for a wrong path on
the original's server (findings B5a): that failure says nothing about the policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from seg_common.errors import UsageError
from seg_research.core.video import FrameId
from seg_research.data.sample import ONLY_TARGET_ID, Target
from seg_research.episode.transcript import (
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
)
from seg_research.recipes.seg_research.actions import Answer, Search, ShowFrame
from seg_research.recipes.seg_research.compat.terms import RecordedTruth
from seg_research.recipes.seg_research.compat.text import RecordedTranscript
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.records.rollouts import Rollout, observation_of, recorded_numbers
from seg_research.records.schema import MODEL_ROLE, PredictionRow, TurnRecord
from seg_research.records.truth import read_gts, read_steps, usable_frames

_NAMES = {
    "iou_score": "box_iou",
    "box_l1_score": "box_l1",
    "point_l1_score": "point",
    "keyframe_score": "keyframe",
    "process_score": "process",
    "acc": "acc",
    "num_search": "num_search",
    "score": "score",
}
"""Our names of the numbers that a line holds."""

_STOPS = {
    "max_turns_reached": StopReason.TURN_LIMIT,
    "max_model_len_exceeded": StopReason.TOO_LONG,
}
_CUT_OFF = ("max_response_length", "finish_reason_length")

_CHAT_TURN = "<|im_start|>"
_CHAT_END = "<|im_end|>"
_OFFERED_FRAME = re.compile(r"^frame (\d{1,9}) <image>$", re.MULTILINE)
_USED_FIELDS = frozenset(
    {"id", "sample_idx", "video_path", "ability", "data_source", "num_search", "traj_stop_reason"}
)
_SUMMARY_CHARS = 120


class _Call(NamedTuple):
    """What the original's server says of one tool call, where it says anything."""

    shown: str
    is_valid: bool | None


@dataclass(frozen=True, slots=True)
class OriginalFormat:
    """Reads lines that the original wrote."""

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        """Tell whether the original wrote a line."""
        return "output" in fields

    def read_row(self, fields: Mapping[str, Any]) -> PredictionRow:
        """Read what the rollout claims, and its turns.

        Raises:
            UsageError: a field is missing or malformed; names the field.
        """
        frame_names, question = _read_prompt(fields)
        transcript = _read_transcript(fields, frame_names, question)
        video_path, score = fields.get("video_path"), recorded_numbers({"": fields.get("score")})
        used = _USED_FIELDS | ({"score"} if score else set())
        return PredictionRow(
            sample_id=transcript.sample_id,
            sample_idx=_whole_number(fields, "sample_idx"),
            video_path=Path(video_path) if isinstance(video_path, str) and video_path else None,
            frame_names=frame_names,
            query=question,
            ability=str(fields.get("ability", "")),
            data_source=str(fields.get("data_source", "")),
            turns=tuple(map(_turn_record, transcript.turns, _texts(fields))),
            prediction=final(transcript),
            stop_reason=str(fields.get("traj_stop_reason", "")),
            score=score.get(""),
            num_search=_whole_number(fields, "num_search"),
            extra={name: value for name, value in fields.items() if name not in used},
        )

    def read_rollout(self, fields: Mapping[str, Any]) -> Rollout:
        """Read what rewards judge.

        Raises:
            UsageError: a field is missing or malformed; names the field.
        """
        _whole_number(fields, "num_search")
        given = {name: fields.get(field) for field, name in _NAMES.items()}
        return Rollout(
            _read_transcript(fields, *_read_prompt(fields)),
            _read_truth(fields),
            knows_steps=fields.get("steps") is not None,
            recorded=recorded_numbers(given),
            is_foreign=True,
        )


FORMAT = OriginalFormat()


def _read_transcript(
    fields: Mapping[str, Any], frame_names: Sequence[str], question: str
) -> RecordedTranscript:
    calls = _read_calls(fields)
    offered = {FrameId(int(name)) for name in frame_names}
    turns: list[ModelTurn | Observation] = []
    num_shown = 0
    for role, text in _split_turns(fields["output"], calls):
        if role == MODEL_ROLE:
            parsed = parse_turn(text)
            turns.append(ModelTurn(text, parsed.action, parsed.thinking))
            continue
        is_valid = calls[num_shown].is_valid if num_shown < len(calls) else None
        num_shown += 1
        last = turns[-1] if turns else None
        turns.append(_observation(text, last, is_valid=is_valid, offered=offered))
    name = str(fields.get("traj_stop_reason", ""))
    return RecordedTranscript(
        str(fields.get("id") or ""),
        (Message("user", (Text(question),)),),
        tuple(turns),
        _stop_reason(name, turns),
        output=fields["output"],
    )


def _observation(
    text: str,
    said: ModelTurn | Observation | None,
    *,
    is_valid: bool | None,
    offered: set[FrameId],
) -> Observation:
    match said:
        case ModelTurn(action=Search()):
            tool, outcome = "search", Outcome.REJECTED if is_valid is False else Outcome.OK
        case ModelTurn(action=ShowFrame(frame_id=frame_id)):
            is_offered = not offered or frame_id in offered
            tool, outcome = "keyframe", Outcome.OK if is_offered else Outcome.REJECTED
        case _:
            tool, outcome = "format", Outcome.FAULT
    summary = " ".join(text.split())[:_SUMMARY_CHARS]
    return observation_of(TurnRecord("user", text, summary=summary), outcome, tool)


def _turn_record(turn: ModelTurn | Observation, text: str) -> TurnRecord:
    if isinstance(turn, ModelTurn):
        return TurnRecord(MODEL_ROLE, text, turn.thinking, turn.action.to_json())
    return TurnRecord(turn.message.role, text, summary=turn.summary)


def _stop_reason(name: str, turns: Sequence[ModelTurn | Observation]) -> StopReason:
    """Translate the original's reason; it has no word for an answer."""
    last = turns[-1] if turns else None
    if isinstance(last, ModelTurn) and isinstance(last.action, Answer):
        return StopReason.ANSWERED
    if name.startswith(_CUT_OFF):
        return StopReason.TURN_TRUNCATED
    return _STOPS.get(name, StopReason.NO_ACTION)


def _read_truth(fields: Mapping[str, Any]) -> RecordedTruth | None:
    targets, steps = read_gts(fields), read_steps(fields)
    if targets is None:
        return None
    recorded = targets.get(ONLY_TARGET_ID, {})
    target = Target(ONLY_TARGET_ID, usable_frames(recorded))
    absent = fields.get("absent") is True
    return RecordedTruth((target,), steps, absent, recorded=recorded)


def _whole_number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name) or 0
    if not isinstance(value, int | float) or value != value // 1:
        raise UsageError(f"field {name!r}: expected a whole number, found {value!r:.40}")
    return int(value)


def _read_prompt(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the offered frame ids as text and the question, both from the last message of the
    recorded prompt.
    """
    prompt = fields.get("input", "")
    if not isinstance(fields["output"], str) or not isinstance(prompt, str):
        raise UsageError("fields 'input' and 'output': expected text")
    message = prompt.rpartition(f"{_CHAT_TURN}user\n")[2].partition(_CHAT_END)[0]
    offered = list(_OFFERED_FRAME.finditer(message))
    question = message[offered[-1].end() :] if offered else message
    return tuple(match[1] for match in offered), question.strip()


def _read_calls(fields: Mapping[str, Any]) -> list[_Call]:
    calls = fields.get("tool_interact_info")
    if not isinstance(calls, list):
        return []
    found: list[_Call] = []
    for call in cast("list[object]", calls):
        if isinstance(call, dict):
            told = cast("dict[str, Any]", call)
            shown, flag = told.get("obs"), told.get("valid_action")
            found.append(
                _Call(
                    shown if isinstance(shown, str) else "",
                    bool(flag) if isinstance(flag, int) else None,
                )
            )
    return found


def _texts(fields: Mapping[str, Any]) -> list[str]:
    """Return the turns as they were recorded, `<image>` where images stand."""
    return [text for _, text in _split_turns(fields["output"], _read_calls(fields))]


def _split_turns(output: str, calls: Sequence[_Call]) -> list[tuple[str, str]]:
    """Split a recorded output at its chat tokens into (role, text); it begins inside a turn of the
    policy.

    Results that the line also holds apart are stepped over whole, so that chat tokens inside them
    cannot open a turn.
    """
    turns: list[tuple[str, str]] = []
    expected = iter(call.shown for call in calls)
    role, begin = MODEL_ROLE, 0
    while begin < len(output):
        whole = next(expected, "") if role == "user" else ""
        skipped = len(whole) if output.startswith(whole, begin) else 0
        end = _find(output, _CHAT_END, begin + skipped)
        turns.append((role, output[begin:end]))
        header = _find(output, _CHAT_TURN, end + len(_CHAT_END)) + len(_CHAT_TURN)
        line_end = _find(output, "\n", header)
        role = MODEL_ROLE if output[header:line_end] == MODEL_ROLE else "user"
        begin = line_end + 1
    return turns


def _find(text: str, wanted: str, begin: int) -> int:
    found = text.find(wanted, begin)
    return len(text) if found < 0 else found
