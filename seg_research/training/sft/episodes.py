"""Episodes to imitate: lines of `predictions.jsonl` back as the messages the policy was shown and
the turns it said.

A line needs `schema_version`, `id`, `prompt` (messages), `turns` and `stop_reason`; `score` where a
minimum is asked for. A message or turn has `role`, `text` with `<image>` where images stand, and
`images`: for each a `file` and its shown `size` (width, height).
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

from seg_common.errors import UsageError
from seg_common.files import read_numbered_jsonl
from seg_research.episode.transcript import (
    IMAGE_PLACEHOLDER,
    ImageRef,
    Message,
    StopReason,
    Text,
)
from seg_research.records.reader import read_row
from seg_research.records.schema import MODEL_ROLE, MessageRecord, PredictionRow, TurnRecord


@dataclass(frozen=True, slots=True)
class SftSettings:
    """Which episodes are imitated, and memory for their images.

    Attributes:
        min_score: episodes with a smaller reward are left out; None keeps all.
        answered_only: episodes that ended without an answer are left out.
        image_cache_gb: of one process, for images that are ready for the model.
    """

    min_score: float | None = None
    answered_only: bool = True
    image_cache_gb: float = 1.0

    def __post_init__(self) -> None:
        if self.image_cache_gb < 0:
            raise UsageError(f"seg.sft.image_cache_gb={self.image_cache_gb}: expected 0 or more")


@dataclass(frozen=True, slots=True)
class TrainingEpisode:
    """One episode. Its images have the shown size and the file they come from, but no pixels yet.

    Attributes:
        turns: what was said (role `assistant`) and shown, in order, up to the last thing said.
    """

    episode_id: str
    prompt: tuple[Message, ...]
    turns: tuple[Message, ...]

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image in the order in which it is shown."""
        return tuple(chain.from_iterable(message.images for message in (*self.prompt, *self.turns)))


@dataclass(slots=True)
class Selection:
    """Reads files of episodes and counts, by reason, those that are left out."""

    settings: SftSettings
    left_out: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> Iterator[TrainingEpisode]:
        """Stream the episodes to imitate.

        Raises:
            UsageError: the file or a line is not what `seg-research predict` writes; names the
                line.
        """
        for number, fields in read_numbered_jsonl(path):
            where = f"{path} line {number}"
            row = _parse(fields, where)
            reason = self._unwanted(row)
            if reason:
                self.left_out[reason] += 1
            else:
                yield _episode(row, where)

    def _unwanted(self, row: PredictionRow) -> str | None:
        if row.stop_reason == StopReason.INFRA:
            return "ended by a failing service"
        if not any(turn.by_policy for turn in row.turns):
            return "without a turn of the model"
        if row.stop_reason == StopReason.TURN_TRUNCATED:
            return "cut in the middle of a turn"
        if self.settings.answered_only and row.stop_reason != StopReason.ANSWERED:
            return "without an answer (seg.sft.answered_only)"
        if self.settings.min_score is not None and (
            row.score is None or row.score < self.settings.min_score
        ):
            return f"with a score below {self.settings.min_score:g} (seg.sft.min_score)"
        return None


def _parse(fields: Mapping[str, Any], where: str) -> PredictionRow:
    if "prompt" not in fields and "turns" in fields:
        raise UsageError(
            f"{where}: has no 'prompt', so what the policy was shown is unknown; "
            "write the episodes with: seg-research predict"
        )
    try:
        row = read_row(fields)
    except UsageError as error:
        raise UsageError(f"{where}: {error}; expected a line of seg-research predict") from None
    if row.stop_reason not in list(StopReason):
        raise UsageError(
            f"{where}: field 'stop_reason': {row.stop_reason!r}, "
            f"expected one of {', '.join(StopReason)}"
        )
    return row


def _episode(row: PredictionRow, where: str) -> TrainingEpisode:
    last = max(index for index, turn in enumerate(row.turns) if turn.by_policy)
    turns = tuple(_message(turn, where) for turn in row.turns[: last + 1])
    for earlier, later in zip([None, *turns], turns, strict=False):
        is_model = later.role == MODEL_ROLE
        if is_model and (later.images or (earlier is not None and earlier.role == MODEL_ROLE)):
            raise UsageError(
                f"{where}: field 'turns': a turn of the model holds an image, "
                "or follows another one without an observation"
            )
        if not is_model and (earlier is None or earlier.role != MODEL_ROLE):
            raise UsageError(
                f"{where}: field 'turns': an observation must follow a turn of the model"
            )
    prompt = tuple(_message(message, where) for message in row.prompt or ())
    return TrainingEpisode(row.sample_id, prompt, turns)


def _message(record: MessageRecord | TurnRecord, where: str) -> Message:
    is_model = record.role == MODEL_ROLE
    texts = [record.text] if is_model else record.text.split(IMAGE_PLACEHOLDER)
    if len(texts) != len(record.images) + 1:
        raise UsageError(
            f"{where}: a {record.role} message has {len(texts) - 1} times {IMAGE_PLACEHOLDER} "
            f"but {len(record.images)} images"
        )
    parts: list[Text | ImageRef] = [Text(texts[0])] if texts[0] else []
    for image, text in zip(record.images, texts[1:], strict=True):
        if image.size is None:
            raise UsageError(f"{where}: the image {image.source} has no size; was it stored?")
        parts.append(ImageRef(_blank(image.size), image.file))
        if text:
            parts.append(Text(text))
    return Message(record.role, tuple(parts))


@lru_cache(maxsize=64)
def _blank(size: tuple[int, int]) -> Image.Image:
    """Stand in for an image where only its size matters."""
    return Image.new("1", size)
