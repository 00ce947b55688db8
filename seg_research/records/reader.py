"""`predictions.jsonl`, the contract between the policy and everything after it: one line for one
(question, rollout).

Two kinds of line are read: ours (schema_version 1) and those the authors of Seg-ReSearch recorded
(`output` as one text; specs §7.2). In the latter only assistant turns are parsed: a web page that
contains an answer is not an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seg_common.errors import UsageError
from seg_common.files import read_numbered_jsonl
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId, FramePosition
from seg_research.episode.action import Action, FormatFault
from seg_research.recipes.seg_research.actions import Answer, ObjectRegion, Search, SelectKeyframe
from seg_research.recipes.seg_research.grammar import parse_turn

SCHEMA_VERSION = 1

PredictedObject: TypeAlias = ObjectRegion
"""A prediction holds the regions of the answer as they were parsed; there is no second type for
them.
"""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """The frame the answer's coordinates refer to; `position` is None where the writer did not know
    the whole video.
    """

    frame_id: FrameId
    position: FramePosition | None = None


@dataclass(frozen=True, slots=True)
class PredictedTurn:
    """One turn as recorded: what the policy said (`assistant`) or was shown (`user`).

    Attributes:
        action: JSON form of the parsed action (see `action_to_json`); None for observations.
        outcome: `core.transcript.Outcome` of an observation; empty for the policy's turns.
        images: where the pictures of the turn came from.
    """

    role: str
    text: str
    action: Mapping[str, Any] | None = None
    observation_summary: str = ""
    outcome: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """One finished rollout.

    Attributes:
        sample_idx: number of the rollout of this question, from 0.
        video_path: None for recorded training rollouts, which do not name their video.
        frame_names: stems of the frames offered to the policy.
        objects: regions on the key frame; empty where the policy gave no usable answer.
        extra: every further field of the line, among them the original's `input`, `output`, `gts`,
            `score`, `reward`.
    """

    sample_id: str
    video_path: Path | None
    query: str
    sample_idx: int = 0
    frame_names: tuple[str, ...] = ()
    ability: str = ""
    data_source: str = ""
    turns: tuple[PredictedTurn, ...] = ()
    keyframe: Keyframe | None = None
    objects: tuple[PredictedObject, ...] = ()
    stop_reason: str = ""
    rewards: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    num_search: int = 0
    timings: Mapping[str, float] = field(default_factory=dict[str, float])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def has_answer(self) -> bool:
        """Tell whether there is something to segment."""
        return self.keyframe is not None and bool(self.objects)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of one line."""
        keyframe = (
            None
            if self.keyframe is None
            else {"id": self.keyframe.frame_id, "position": self.keyframe.position}
        )
        return {
            "schema_version": SCHEMA_VERSION,
            "id": self.sample_id,
            "sample_idx": self.sample_idx,
            "video_path": None if self.video_path is None else str(self.video_path),
            "frame_names": list(self.frame_names),
            "query": self.query,
            "ability": self.ability,
            "data_source": self.data_source,
            "turns": [_turn_to_json(turn) for turn in self.turns],
            "keyframe": keyframe,
            "objects": [_object_to_json(region) for region in self.objects],
            "stop_reason": self.stop_reason,
            "rewards": dict(self.rewards),
            "num_search": self.num_search,
            "timings": dict(self.timings),
            **self.extra,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prediction:
        """Read one line of ours or of the original authors.

        Raises:
            UsageError: a field is missing or malformed; the message names the field,
                `read_predictions` adds file and line.
        """
        if "schema_version" in row:
            return _from_own_row(row)
        if "output" in row:
            return _from_recorded_row(row)
        raise UsageError(
            'not a prediction: expected a "schema_version" (written by seg-research predict) or an "output" field'
        )


def read_predictions(
    path: Path, on_refused: Callable[[Mapping[str, Any], str], None] | None = None
) -> Iterator[Prediction]:
    """Stream the predictions of a file.

    A recorded line without `id` is called `line-<number>`; recorded lines that share an id are its
    rollouts 0, 1, ….

    Args:
        path: of the file.
        on_refused: given, it is told of each line that is no prediction, and why, and reading goes
            on.

    Raises:
        UsageError: a line is no prediction (unless `on_refused` takes it) or not even JSON, or an
            (id, sample_idx) pair of ours stands twice; names file and line.
    """
    seen: Counter[str] = Counter()
    written: set[tuple[str, int]] = set()
    for number, row in read_numbered_jsonl(path):
        if "schema_version" not in row:
            sample_id = str(row.get("id") or f"line-{number}")
            row = {**row, "id": sample_id, "sample_idx": seen[sample_id]}
            seen[sample_id] += 1
        try:
            prediction = Prediction.from_json(row)
        except UsageError as error:
            refusal = f"{path} line {number}: {error}"
            if on_refused is None:
                raise UsageError(refusal) from None
            on_refused(row, refusal)
            continue
        key = prediction.sample_id, prediction.sample_idx
        if key in written:
            raise UsageError(
                f"{path} line {number}: id {key[0]!r}, sample_idx {key[1]} stands twice; delete one of the lines"
            )
        written.add(key)
        yield prediction


def action_to_json(action: Action) -> dict[str, Any]:
    """Return an action of the seg_research grammar as JSON; actions of other grammars keep their
    class name alone.
    """
    match action:
        case Search(kind, query):
            return {"kind": "search", "tool": str(kind), "query": query}
        case SelectKeyframe(frame_id):
            return {"kind": "keyframe", "frame_id": frame_id}
        case Answer(objects):
            return {"kind": "answer", "objects": [_object_to_json(region) for region in objects]}
        case FormatFault(kind, detail):
            return {"kind": "fault", "fault": str(kind), "detail": detail}
        case _:
            return {"kind": type(action).__name__.lower()}


def _object_to_json(region: ObjectRegion) -> dict[str, Any]:
    return {
        "box_norm1000": None if region.box is None else region.box.as_list(),
        "points_norm1000": [[p.x, p.y] for p in region.points],
        "negative_points_norm1000": [[p.x, p.y] for p in region.negative_points],
    }


def _turn_to_json(turn: PredictedTurn) -> dict[str, Any]:
    return {
        "role": turn.role,
        "text": turn.text,
        "action": None if turn.action is None else dict(turn.action),
        "observation_summary": turn.observation_summary,
        "outcome": turn.outcome,
        "images": list(turn.images),
    }


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _KeyframeRow(_Row):
    id: int = Field(ge=0)
    position: int | None = Field(default=None, ge=0)


class _ObjectRow(_Row):
    box_norm1000: tuple[float, float, float, float] | None = None
    points_norm1000: tuple[tuple[float, float], ...] = ()
    negative_points_norm1000: tuple[tuple[float, float], ...] = ()


class _TurnRow(_Row):
    role: str
    text: str
    action: dict[str, Any] | None = None
    observation_summary: str = ""
    outcome: str = ""
    images: tuple[str, ...] = ()


class _PredictionRow(_Row):
    schema_version: int
    id: str
    sample_idx: int = Field(default=0, ge=0)
    video_path: str | None = None
    frame_names: tuple[str, ...] = ()
    query: str = ""
    ability: str = ""
    data_source: str = ""
    turns: tuple[_TurnRow, ...] = ()
    keyframe: _KeyframeRow | None = None
    objects: tuple[_ObjectRow, ...] = ()
    stop_reason: str = ""
    rewards: dict[str, float | None] = Field(default_factory=dict[str, float | None])
    num_search: int = 0
    timings: dict[str, float] = Field(default_factory=dict[str, float])


def _from_own_row(fields: Mapping[str, Any]) -> Prediction:
    if fields["schema_version"] != SCHEMA_VERSION:
        raise UsageError(
            f"schema_version {fields['schema_version']!r}: this program reads version {SCHEMA_VERSION}; write the file anew"
        )
    try:
        row = _PredictionRow.model_validate(fields)
        objects = tuple(_read_region(region) for region in row.objects)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"field {where!r}: {first['msg'].lower()}, found {str(first['input'])[:60]!r}"
        ) from None
    except ValueError as error:
        raise UsageError(f"field 'objects': {error}") from None
    keyframe = row.keyframe and Keyframe(
        FrameId(row.keyframe.id),
        None if row.keyframe.position is None else FramePosition(row.keyframe.position),
    )
    return Prediction(
        sample_id=row.id,
        sample_idx=row.sample_idx,
        video_path=Path(row.video_path) if row.video_path else None,
        frame_names=row.frame_names,
        query=row.query,
        ability=row.ability,
        data_source=row.data_source,
        turns=tuple(
            PredictedTurn(t.role, t.text, t.action, t.observation_summary, t.outcome, t.images)
            for t in row.turns
        ),
        keyframe=keyframe,
        objects=objects,
        stop_reason=row.stop_reason,
        rewards=row.rewards,
        num_search=row.num_search,
        timings=row.timings,
        extra=row.model_extra or {},
    )


def _read_region(row: _ObjectRow) -> ObjectRegion:
    box = None if row.box_norm1000 is None else Norm1000Box(*row.box_norm1000)
    points = tuple(Norm1000Point(x, y) for x, y in row.points_norm1000)
    if box is None and not points:
        raise ValueError("an object needs box_norm1000 or points_norm1000")
    return ObjectRegion(
        box, points, tuple(Norm1000Point(x, y) for x, y in row.negative_points_norm1000)
    )


_CHAT_TURN = "<|im_start|>"
_CHAT_END = "<|im_end|>"
_OFFERED_FRAME = re.compile(r"^frame (\d{1,9}) <image>$", re.MULTILINE)
_RECORDED_FIELDS = frozenset(
    {"id", "sample_idx", "video_path", "ability", "data_source", "num_search", "traj_stop_reason"}
)


def _from_recorded_row(fields: Mapping[str, Any]) -> Prediction:
    output, prompt = fields["output"], fields.get("input", "")
    if not isinstance(output, str) or not isinstance(prompt, str):
        raise UsageError("fields 'input' and 'output': expected text")
    frame_names, query = _read_recorded_prompt(prompt)
    turns, actions = _read_recorded_turns(output, _known_observations(fields))
    keyframe, objects = _last_answer(
        actions, offered=frozenset(FrameId(int(name)) for name in frame_names)
    )
    video_path = fields.get("video_path")
    return Prediction(
        sample_id=str(fields.get("id") or ""),
        sample_idx=_whole_number(fields, "sample_idx"),
        video_path=Path(video_path) if isinstance(video_path, str) and video_path else None,
        frame_names=frame_names,
        query=query,
        ability=str(fields.get("ability", "")),
        data_source=str(fields.get("data_source", "")),
        turns=turns,
        keyframe=keyframe,
        objects=objects,
        stop_reason=str(fields.get("traj_stop_reason", "")),
        num_search=_whole_number(fields, "num_search"),
        extra={key: value for key, value in fields.items() if key not in _RECORDED_FIELDS},
    )


def _whole_number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name) or 0
    if not isinstance(value, int | float) or value != value // 1:
        raise UsageError(f"field {name!r}: expected a whole number, found {value!r:.40}")
    return int(value)


def _read_recorded_prompt(prompt: str) -> tuple[tuple[str, ...], str]:
    """Return the offered frame ids as text and the question, both from the last message of the
    recorded prompt.
    """
    message = prompt.rpartition(f"{_CHAT_TURN}user\n")[2].partition(_CHAT_END)[0]
    offered = list(_OFFERED_FRAME.finditer(message))
    question = message[offered[-1].end() :] if offered else message
    return tuple(match[1] for match in offered), question.strip()


def _known_observations(fields: Mapping[str, Any]) -> list[str]:
    calls = fields.get("tool_interact_info")
    if not isinstance(calls, list):
        return []
    records = [
        cast("dict[str, Any]", call)
        for call in cast("list[object]", calls)
        if isinstance(call, dict)
    ]
    return [record["obs"] for record in records if isinstance(record.get("obs"), str)]


def _read_recorded_turns(
    output: str, observations: Sequence[str]
) -> tuple[tuple[PredictedTurn, ...], list[Action]]:
    """Split a recorded output at its chat tokens; the text begins inside an assistant turn.

    Observations that the record also holds apart are stepped over whole, so that chat tokens inside
    them cannot open a turn.
    """
    turns: list[PredictedTurn] = []
    actions: list[Action] = []
    expected = iter(observations)
    role, begin = "assistant", 0
    while begin < len(output):
        known = next(expected, "") if role == "user" else ""
        end = _find(
            output, _CHAT_END, begin + len(known) if output.startswith(known, begin) else begin
        )
        text = output[begin:end]
        if role == "assistant":
            action = parse_turn(text).action
            actions.append(action)
            turns.append(PredictedTurn(role, text, action_to_json(action)))
        else:
            turns.append(
                PredictedTurn(role, text, observation_summary=" ".join(text.split())[:120])
            )
        header = _find(output, _CHAT_TURN, end + len(_CHAT_END)) + len(_CHAT_TURN)
        line_end = _find(output, "\n", header)
        role, begin = (
            "assistant" if output[header:line_end] == "assistant" else "user",
            line_end + 1,
        )
    return tuple(turns), actions


def _find(text: str, wanted: str, begin: int) -> int:
    found = text.find(wanted, begin)
    return len(text) if found < 0 else found


def _last_answer(
    actions: Sequence[Action], offered: frozenset[FrameId]
) -> tuple[Keyframe | None, tuple[ObjectRegion, ...]]:
    """Return the regions of the last answer, with the last key frame before it that was really
    offered.
    """
    keyframe: Keyframe | None = None
    result: tuple[Keyframe | None, tuple[ObjectRegion, ...]] = None, ()
    for action in actions:
        if isinstance(action, SelectKeyframe) and (not offered or action.frame_id in offered):
            keyframe = Keyframe(action.frame_id)
        elif isinstance(action, Answer):
            result = keyframe, action.objects
    return result
