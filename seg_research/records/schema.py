"""`predictions.jsonl` as types: one row for one (question, rollout). The writer writes version 2,
the reader reads it and version 1.

    schema_version, id, sample_idx, video_path, frame_names, query, ability, data_source
    prompt       messages {role, text, images}; only where the images were stored
    turns        of the policy {role, text, thinking, action, num_tokens},
                 shown to it {role, text, tool, outcome, summary, images}
    objects      {frame_id, box_norm1000, points_norm1000, negative_points_norm1000, mask}
    keyframe     {id, position} or null; answered, claims_absent
    stop_reason, error, score, rewards, num_search, timings, and whatever the writer adds

An action holds its `kind` and its fields. An image holds its `source` and, where it was stored,
`file` and shown `size`. A mask is COCO's compressed run lengths, `{size: [H, W], counts}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seg_research.core.prediction import PredictedObject, Prediction
from seg_research.core.video import FramePosition

SCHEMA_VERSION = 2

MODEL_ROLE = "assistant"
"""The role of the policy's own turns."""

FAULT_KIND = "fault"
"""The kind of a turn that was not a valid action, in every grammar."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image by reference.

    Attributes:
        source: where it came from, a file or an address.
        file: gives the very pixels that were shown, once scaled to `size`; empty where images were
            not stored.
        size: (width, height) in pixels, as shown; None where images were not stored.
    """

    source: str
    file: str = ""
    size: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        stored = {"file": self.file, "size": None if self.size is None else list(self.size)}
        return {"source": self.source, **(stored if self.file else {})}


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A message of the opening prompt; `text` has `<image>` where images stand."""

    role: str
    text: str
    images: tuple[ImageRecord, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        images = [image.to_json() for image in self.images]
        return {"role": self.role, "text": self.text, "images": images}


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """What the policy said, or what it was shown in return.

    Attributes:
        thinking: before the action; None without a thought.
        action: `kind` and fields of what was parsed; None for what was shown.
        num_tokens: sampled; None where the writer did not count.
        tool: whose result was shown.
        outcome: how the call went, an `Outcome`; empty for the policy's own turns.
        summary: one line about what was shown.
        images: shown.
        extra: further fields of the line.
    """

    role: str
    text: str
    thinking: str | None = None
    action: Mapping[str, Any] | None = None
    num_tokens: int | None = None
    tool: str = ""
    outcome: str = ""
    summary: str = ""
    images: tuple[ImageRecord, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def by_policy(self) -> bool:
        """Whether the policy said it."""
        return self.role == MODEL_ROLE

    @property
    def is_fault(self) -> bool:
        """Whether it is a malformed turn of the policy."""
        return self.action is not None and self.action.get("kind") == FAULT_KIND

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        if self.by_policy:
            own = {
                "thinking": self.thinking,
                "action": None if self.action is None else dict(self.action),
                "num_tokens": self.num_tokens,
            }
        else:
            own = {
                "tool": self.tool,
                "outcome": self.outcome,
                "summary": self.summary,
                "images": [image.to_json() for image in self.images],
            }
        return {"role": self.role, "text": self.text, **own, **self.extra}


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One finished rollout.

    Attributes:
        sample_idx: number of the rollout of this question, from 0.
        video_path: None where a line does not name its video.
        frame_names: stems of the frames offered to the policy.
        prompt: what it was shown first; None where images were not stored.
        keyframe_position: of the prediction's key frame in the whole video; None where the writer
            did not know the video.
        score: total reward; None where the rollout was not scored.
        rewards: every term's value by name; None where a term did not run.
        num_search: searches that reached the search tool.
        extra: every further field of the line.
    """

    sample_id: str
    video_path: Path | None
    query: str = ""
    sample_idx: int = 0
    frame_names: tuple[str, ...] = ()
    ability: str = ""
    data_source: str = ""
    prompt: tuple[MessageRecord, ...] | None = None
    turns: tuple[TurnRecord, ...] = ()
    prediction: Prediction = field(default_factory=Prediction)
    keyframe_position: FramePosition | None = None
    stop_reason: str = ""
    error: str = ""
    score: float | None = None
    rewards: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    num_search: int = 0
    timings: Mapping[str, float] = field(default_factory=dict[str, float])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_well_formed(self) -> bool:
        """Whether no turn was malformed and the policy ended with a complete prediction."""
        return self.prediction.is_complete and not any(turn.is_fault for turn in self.turns)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of one line."""
        prompt = None if self.prompt is None else [message.to_json() for message in self.prompt]
        claim = self.prediction
        return {
            "schema_version": SCHEMA_VERSION,
            "id": self.sample_id,
            "sample_idx": self.sample_idx,
            "video_path": None if self.video_path is None else str(self.video_path),
            "frame_names": list(self.frame_names),
            "query": self.query,
            "ability": self.ability,
            "data_source": self.data_source,
            **({} if prompt is None else {"prompt": prompt}),
            "turns": [turn.to_json() for turn in self.turns],
            "keyframe": keyframe_to_json(claim, self.keyframe_position),
            "objects": [object_to_json(found) for found in claim.objects],
            "answered": claim.answered,
            "claims_absent": claim.absent,
            "stop_reason": self.stop_reason,
            "error": self.error,
            "score": self.score,
            "rewards": dict(self.rewards),
            "num_search": self.num_search,
            "timings": dict(self.timings),
            **self.extra,
        }


def keyframe_to_json(
    prediction: Prediction, position: FramePosition | None
) -> dict[str, Any] | None:
    """Return the JSON form of the chosen frame; None where none was chosen."""
    if prediction.keyframe_id is None:
        return None
    return {"id": prediction.keyframe_id, "position": position}


def object_to_json(found: PredictedObject) -> dict[str, Any]:
    """Return the JSON form of one object on one frame."""
    return {
        "frame_id": found.frame_id,
        "box_norm1000": None if found.box is None else found.box.as_list(),
        "points_norm1000": [[point.x, point.y] for point in found.points],
        "negative_points_norm1000": [[point.x, point.y] for point in found.negative_points],
        **({} if found.mask is None else {"mask": found.mask.to_json()}),
    }
