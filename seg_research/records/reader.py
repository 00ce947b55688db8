"""Read `predictions.jsonl`: version 2 and 1 of ours, what a person wrote who only wants masks, and
rollouts of other projects (records/foreign.py).

Written by hand, a line needs `id`, `video_path`, a frame (`frame_id`, or `keyframe`) and a box or
points (`box_norm1000`, `points_norm1000`), for several objects a list `objects` of them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from seg_common.errors import UsageError
from seg_common.files import read_numbered_jsonl
from seg_research.core.prediction import Prediction
from seg_research.core.video import FrameId, FramePosition
from seg_research.records.foreign import find_format, version_1
from seg_research.records.objects import ObjectFields, Warn, read_object, refuse_geometry
from seg_research.records.rollouts import ReadAction, Rollout, rollout_of
from seg_research.records.schema import (
    SCHEMA_VERSION,
    ImageRecord,
    MessageRecord,
    PredictionRow,
    TurnRecord,
)

logger = logging.getLogger(__name__)

_FLAT_OBJECT = ("box_norm1000", "points_norm1000", "negative_points_norm1000", "mask")


def read_predictions(
    path: Path, on_refused: Callable[[Mapping[str, Any], str], None] | None = None
) -> Iterator[PredictionRow]:
    """Stream the rows of a file.

    A foreign line without `id` is called `line-<number>`; foreign lines that share an id are its
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
    for number, fields in read_numbered_jsonl(path):
        where = f"{path} line {number}"
        if not _is_ours(fields):
            sample_id = str(fields.get("id") or f"line-{number}")
            fields = {**fields, "id": sample_id, "sample_idx": seen[sample_id]}
            seen[sample_id] += 1
        try:
            row = read_row(fields, lambda text, at=where: logger.warning("%s: %s", at, text))
        except UsageError as error:
            refusal = f"{where}: {error}"
            if on_refused is None:
                raise UsageError(refusal) from None
            on_refused(fields, refusal)
            continue
        key = row.sample_id, row.sample_idx
        if key in written:
            raise UsageError(
                f"{where}: id {key[0]!r}, sample_idx {key[1]} stands twice; delete one of the lines"
            )
        written.add(key)
        yield row


def read_row(fields: Mapping[str, Any], warn: Warn = logger.warning) -> PredictionRow:
    """Read one line.

    Args:
        fields: the JSON object.
        warn: is told of what was read although it looks wrong.

    Raises:
        UsageError: a field is missing or malformed; the message names it, and `read_predictions`
            adds file and line.
    """
    if _is_ours(fields):
        return _read_own(fields, warn)
    found = find_format(fields)
    if found is None:
        raise UsageError(
            'not a prediction: expected a "schema_version" (written by seg-research predict), '
            '"objects" with a frame, or an "output" field'
        )
    return found.read_row(fields)


def read_rollout(fields: Mapping[str, Any], read_action: ReadAction | None = None) -> Rollout:
    """Read one line as what rewards judge.

    Args:
        fields: the JSON object.
        read_action: of the recipe that wrote it; foreign formats know their own.

    Raises:
        UsageError: a field is missing or malformed; names the field.
    """
    found = None if _is_ours(fields) else find_format(fields)
    if found is not None:
        return found.read_rollout(fields)
    row = read_row(fields)
    if read_action is None:
        raise UsageError("a line of ours can only be scored by the recipe that wrote it")
    return rollout_of(row, fields, read_action)


def _is_ours(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in ("schema_version", "objects", *_FLAT_OBJECT))


class _Fields(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)


class _KeyframeFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int = Field(ge=0)
    position: int | None = Field(default=None, ge=0)


class _ImageFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = ""
    file: str = Field(default="", validation_alias=AliasChoices("file", "path"))
    size: tuple[PositiveInt, PositiveInt] | None = None


class _MessageFields(_Fields):
    role: str
    text: str
    images: tuple[str | _ImageFields, ...] = ()
    pictures: tuple[_ImageFields, ...] | None = None
    """In version 1: where the images were stored; `images` held their sources."""


class _TurnFields(_MessageFields):
    thinking: str | None = None
    action: dict[str, Any] | None = None
    num_tokens: int | None = None
    tool: str = ""
    outcome: str = ""
    summary: str = Field(
        default="", validation_alias=AliasChoices("summary", "observation_summary")
    )


class _RowFields(_Fields):
    schema_version: int = SCHEMA_VERSION
    id: str
    sample_idx: int = Field(default=0, ge=0)
    video_path: str | None = None
    frame_names: tuple[str, ...] = ()
    query: str = ""
    ability: str = ""
    data_source: str = ""
    prompt: tuple[_MessageFields, ...] | None = None
    turns: tuple[_TurnFields, ...] = ()
    keyframe: _KeyframeFields | None = None
    objects: tuple[ObjectFields, ...] = ()
    answered: bool | None = None
    claims_absent: bool = False
    stop_reason: str = ""
    error: str = ""
    score: float | None = None
    rewards: dict[str, float | None] = Field(default_factory=dict[str, float | None])
    num_search: int = 0
    timings: dict[str, float] = Field(default_factory=dict[str, float])


def _read_own(fields: Mapping[str, Any], warn: Warn) -> PredictionRow:
    version = fields.get("schema_version", SCHEMA_VERSION)
    if version not in range(1, SCHEMA_VERSION + 1):
        raise UsageError(
            f"schema_version {version!r}: this program reads versions 1 to {SCHEMA_VERSION}; "
            "read the file with the program that wrote it, or write it again"
        )
    try:
        row = _RowFields.model_validate(_in_full(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"field {place!r}: {first['msg'].lower()}, found {str(first['input'])[:60]!r}"
        ) from None
    read = _row(row, lambda text: warn(f"id {row.id!r}: {text}"))
    is_old = version == 1 and any(turn.action is not None for turn in read.turns)
    return version_1().complete(read) if is_old else read


def _in_full(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring the short forms of a hand-written line, a key frame as a number and one object whose
    fields stand in the line itself, into the full ones.
    """
    full = dict(fields)
    if type(full.get("keyframe")) is int:
        full["keyframe"] = {"id": full["keyframe"]}
    flat = {name: full[name] for name in ("frame_id", *_FLAT_OBJECT) if name in full}
    if "objects" not in full and len(flat) > ("frame_id" in flat):
        full = {name: value for name, value in full.items() if name not in flat}
        full["objects"] = [flat]
    return full


def _row(row: _RowFields, warn: Warn) -> PredictionRow:
    extra = row.model_extra or {}
    refuse_geometry(extra)
    keyframe_id = None if row.keyframe is None else FrameId(row.keyframe.id)
    objects = tuple(
        read_object(
            found,
            f"field 'objects.{index}'",
            keyframe_id,
            written_by_hand=not row.turns,
            warn=warn,
        )
        for index, found in enumerate(row.objects)
    )
    answered = bool(objects) or row.claims_absent if row.answered is None else row.answered
    position = None if row.keyframe is None else row.keyframe.position
    return PredictionRow(
        sample_id=row.id,
        sample_idx=row.sample_idx,
        video_path=Path(row.video_path) if row.video_path else None,
        frame_names=row.frame_names,
        query=row.query,
        ability=row.ability,
        data_source=row.data_source,
        prompt=None if row.prompt is None else tuple(_message(one, warn) for one in row.prompt),
        turns=tuple(map(_turn, row.turns)),
        prediction=Prediction(objects, answered, row.claims_absent, keyframe_id),
        keyframe_position=None if position is None else FramePosition(position),
        stop_reason=row.stop_reason,
        error=row.error,
        score=row.score,
        rewards=row.rewards,
        num_search=row.num_search,
        timings=row.timings,
        extra=extra,
    )


def _message(message: _MessageFields, warn: Warn) -> MessageRecord:
    for name in message.model_extra or {}:
        warn(f"field 'prompt': {name!r} of a message is not used")
    return MessageRecord(message.role, message.text, _images(message))


def _turn(turn: _TurnFields) -> TurnRecord:
    return TurnRecord(
        turn.role,
        turn.text,
        turn.thinking,
        turn.action,
        turn.num_tokens,
        turn.tool,
        turn.outcome,
        turn.summary,
        _images(turn),
        turn.model_extra or {},
    )


def _images(message: _MessageFields) -> tuple[ImageRecord, ...]:
    shown = [
        ImageRecord(image) if isinstance(image, str) else _image(image) for image in message.images
    ]
    if message.pictures is None:
        return tuple(shown)
    stored = [_image(image) for image in message.pictures]
    if len(shown) != len(stored):
        return tuple(stored)
    pairs = zip(shown, stored, strict=True)
    return tuple(ImageRecord(known.source, kept.file, kept.size) for known, kept in pairs)


def _image(image: _ImageFields) -> ImageRecord:
    return ImageRecord(image.source or image.file, image.file, image.size)
