"""What one policy made of a question, ready to be laid out: turns, located frames, masks, rewards.

Nothing here is markup: strings are cut to size and escaped later, by the template engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from seg_research.core.prediction import Prediction
from seg_research.core.video import FramePosition, FrameSource, position_of
from seg_research.records.schema import PredictionRow
from seg_research.viewer.located import LocatedFrame, view_located
from seg_research.viewer.mask_strip import MaskStrip, draw_masks
from seg_research.viewer.run_folder import PredictionSet
from seg_research.viewer.text import shorten
from seg_research.viewer.thumbnails import Thumbnail
from seg_research.viewer.truth import TruthView
from seg_research.viewer.turns import TurnView, view_turn

MAX_TURNS, MAX_TERMS = 40, 16


@dataclass(frozen=True, slots=True)
class RewardBar:
    """A reward term; `value` None where it did not run, `percent` is the length of its bar."""

    name: str
    value: float | None
    percent: float


@dataclass(frozen=True, slots=True)
class TrajectoryView:
    """One policy's answer to one question.

    Attributes:
        located: frames with what was answered on them.
        masks: frames of the video with predicted and true masks.
        mean_j: mean over the frames of `masks`, not over the whole video.
    """

    policy: str
    reward: float | None
    rewards: tuple[RewardBar, ...]
    num_search: int
    stop_reason: str
    turns: tuple[TurnView, ...]
    located: tuple[LocatedFrame, ...]
    masks: tuple[Thumbnail, ...]
    mean_j: float | None
    notes: tuple[str, ...]

    @property
    def images(self) -> tuple[Thumbnail, ...]:
        """Every image of the trajectory."""
        found = chain.from_iterable(turn.images for turn in self.turns)
        return (*found, *self.masks, *(frame.image for frame in self.located))


def view_trajectory(
    source: PredictionSet,
    row: PredictionRow,
    video: FrameSource | None,
    truth: TruthView,
    found_images: Mapping[str, Path],
) -> TrajectoryView:
    """Lay out one policy's answer; what cannot be shown is named in the notes.

    Args:
        source: the predictions that the row is from.
        row: the rollout.
        video: None where it cannot be opened.
        truth: of the question.
        found_images: files by the source a search names them by.
    """
    notes: list[str] = []
    strip, located = MaskStrip(), ()
    if video:
        strip = _draw_masks(source, row, video, truth, notes)
        located = view_located(row.prediction, video, truth, notes)
    if row.prediction.absent:
        notes.append("the policy says that the target is not in the video")
    elif row.prediction.keyframe_id is None and not row.prediction.objects:
        notes.append("no frame was chosen, so nothing could be segmented")
    if len(row.turns) > MAX_TURNS:
        notes.append(f"{len(row.turns) - MAX_TURNS} more turns are not shown")
    return TrajectoryView(
        policy=shorten(source.name, 40),
        reward=_finite(row.score),
        rewards=tuple(_bar(*term) for term in islice(row.rewards.items(), MAX_TERMS)),
        num_search=row.num_search,
        stop_reason=shorten(row.stop_reason, 60),
        turns=tuple(view_turn(turn, found_images) for turn in row.turns[:MAX_TURNS]),
        located=located,
        masks=strip.images,
        mean_j=strip.mean_j,
        notes=tuple(notes),
    )


def _draw_masks(
    source: PredictionSet,
    row: PredictionRow,
    video: FrameSource,
    truth: TruthView,
    notes: list[str],
) -> MaskStrip:
    if not (source.masks_dir or truth.masks_dir):
        return MaskStrip()
    is_safe = source.masks_dir is not None and _is_plain_name(row.sample_id)
    folder = source.masks_dir / row.sample_id if source.masks_dir and is_safe else None
    strip = draw_masks(folder, truth, video, _told_position(row.prediction, video))
    if source.masks_dir and not strip.num_predicted:
        notes.append("no predicted masks for this question")
    return strip


def _told_position(prediction: Prediction, video: FrameSource) -> FramePosition | None:
    """Return the position of the key frame, or of the first object's frame without one."""
    frame_id = prediction.keyframe_id
    if frame_id is None and prediction.objects:
        frame_id = prediction.objects[0].frame_id
    return None if frame_id is None else position_of(frame_id, video.names)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _bar(name: str, value: float | None) -> RewardBar:
    known = _finite(value)
    return RewardBar(shorten(name, 40), known, 100 * min(max(known or 0.0, 0.0), 1.0))


def _is_plain_name(name: str) -> bool:
    """Tell whether an id can be a folder name; one with separators or dots alone would lead
    elsewhere.
    """
    return not ({"/", "\\", "\0"} & set(name)) and name not in {"", ".", ".."}
