"""Episodes to imitate: lines of `predictions.jsonl` back as the messages the policy was shown and
the turns it said.

A line needs `schema_version`, `id`, `prompt` (messages), `turns` and `stop_reason`; `score` where a
minimum is asked for. A message or turn has `role`, `text` with `<image>` where pictures stand, and
`pictures`: for each a file and its shown size (width, height).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from seg_common.errors import UsageError
from seg_common.files import read_numbered_jsonl
from seg_research.episode.transcript import ImageRef, Message, StopReason, Text
from seg_research.recipes.seg_research.prompt import IMAGE_PLACEHOLDER
from seg_research.records.reader import SCHEMA_VERSION

MODEL_ROLE = "assistant"


@dataclass(frozen=True, slots=True)
class SftSettings:
    """Which episodes are imitated, and memory for their pictures.

    Attributes:
        min_score: episodes with a smaller reward are left out; None keeps all.
        answered_only: episodes that ended without an answer are left out.
        picture_cache_gb: of one process, for pictures that are ready for the model.
    """

    min_score: float | None = None
    answered_only: bool = True
    picture_cache_gb: float = 1.0

    def __post_init__(self) -> None:
        if self.picture_cache_gb < 0:
            raise UsageError(
                f"seg.sft.picture_cache_gb={self.picture_cache_gb}: expected 0 or more"
            )


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode. Its pictures have the shown size and the file they come from, but no pixels yet.

    Attributes:
        turns: what was said (role `assistant`) and shown, in order, up to the last thing said.
    """

    episode_id: str
    prompt: tuple[Message, ...]
    turns: tuple[Message, ...]

    @property
    def pictures(self) -> tuple[ImageRef, ...]:
        """Every picture in the order in which it is shown."""
        return tuple(chain.from_iterable(message.images for message in (*self.prompt, *self.turns)))


class _Picture(BaseModel):
    path: str
    size: tuple[PositiveInt, PositiveInt]


class _Message(BaseModel):
    role: str
    text: str
    pictures: list[_Picture] = Field(default_factory=list[_Picture])


class _Line(BaseModel):
    schema_version: int
    id: str
    prompt: list[_Message]
    turns: list[_Message]
    stop_reason: StopReason
    score: float | None = None


@dataclass(slots=True)
class Selection:
    """Reads files of episodes and counts, by reason, those that are left out."""

    settings: SftSettings
    left_out: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> Iterator[Demonstration]:
        """Stream the episodes to imitate.

        Raises:
            UsageError: the file or a line is not what `seg-research predict` writes; names the
                line.
        """
        for number, row in read_numbered_jsonl(path):
            line = _parse(row, f"{path} line {number}")
            reason = self._unwanted(line)
            if reason:
                self.left_out[reason] += 1
            else:
                yield _demonstration(line, f"{path} line {number}")

    def _unwanted(self, line: _Line) -> str | None:
        if line.stop_reason is StopReason.INFRA:
            return "ended by a failing service"
        if not any(turn.role == MODEL_ROLE for turn in line.turns):
            return "without a turn of the model"
        if line.stop_reason is StopReason.TURN_TRUNCATED:
            return "cut in the middle of a turn"
        if self.settings.answered_only and line.stop_reason is not StopReason.ANSWERED:
            return "without an answer (seg.sft.answered_only)"
        if self.settings.min_score is not None and (
            line.score is None or line.score < self.settings.min_score
        ):
            return f"with a score below {self.settings.min_score:g} (seg.sft.min_score)"
        return None


def _parse(row: Mapping[str, Any], where: str) -> _Line:
    if "prompt" not in row and "turns" in row:
        raise UsageError(
            f"{where}: has no 'prompt', so what the policy was shown is unknown; write the episodes with: seg-research predict"
        )
    try:
        line = _Line.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: field '{place}': {first['msg'].lower()}; expected a line of seg-research predict"
        ) from None
    if line.schema_version != SCHEMA_VERSION:
        raise UsageError(
            f"{where}: schema_version {line.schema_version}: this program reads version {SCHEMA_VERSION}; write the file anew"
        )
    return line


def _demonstration(line: _Line, where: str) -> Demonstration:
    last = max(index for index, turn in enumerate(line.turns) if turn.role == MODEL_ROLE)
    turns = tuple(_message(turn, where) for turn in line.turns[: last + 1])
    for earlier, later in zip([None, *turns], turns, strict=False):
        is_model = later.role == MODEL_ROLE
        if is_model and (later.images or (earlier is not None and earlier.role == MODEL_ROLE)):
            raise UsageError(
                f"{where}: field 'turns': a turn of the model holds a picture, or follows another one without an observation"
            )
        if not is_model and (earlier is None or earlier.role != MODEL_ROLE):
            raise UsageError(
                f"{where}: field 'turns': an observation must follow a turn of the model"
            )
    return Demonstration(line.id, tuple(_message(message, where) for message in line.prompt), turns)


def _message(row: _Message, where: str) -> Message:
    texts = row.text.split(IMAGE_PLACEHOLDER) if row.role != MODEL_ROLE else [row.text]
    if len(texts) != len(row.pictures) + 1:
        raise UsageError(
            f"{where}: a {row.role} message has {len(texts) - 1} times {IMAGE_PLACEHOLDER} but {len(row.pictures)} pictures"
        )
    parts: list[Text | ImageRef] = [Text(texts[0])] if texts[0] else []
    for picture, text in zip(row.pictures, texts[1:], strict=True):
        parts.append(ImageRef(_blank(picture.size), picture.path))
        if text:
            parts.append(Text(text))
    return Message(row.role, tuple(parts))


@lru_cache(maxsize=64)
def _blank(size: tuple[int, int]) -> Image.Image:
    """Stand in for a picture where only its size matters."""
    return Image.new("1", size)
