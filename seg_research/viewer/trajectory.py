"""One question and what each policy made of it, ready to be laid out: turns, key frame with boxes,
masks, rewards.

Nothing here is markup: strings are cut to size and escaped later, by the template engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from seg_common.errors import UsageError
from seg_research.core.geometry import (
    ImageSize,
    Norm1000Box,
    Norm1000Point,
    PixelBox,
    PixelPoint,
    box_to_norm1000,
    box_to_pixels,
    point_to_pixels,
)
from seg_research.core.masks import Mask, mask_box, read_mask
from seg_research.core.video import FramePosition, FrameSource, frame_id_of, open_video, position_of
from seg_research.metrics.region import jaccard
from seg_research.records.schema import PredictionRow
from seg_research.viewer.run_folder import PredictionSet, Run
from seg_research.viewer.text import shorten
from seg_research.viewer.thumbnails import Picture, embed, overlay_masks
from seg_research.viewer.turns import LINE_CHARS, TurnView, read_box, view_turn

NUM_MASK_FRAMES = 6
OFFERED_WIDTH_PX, MASK_WIDTH_PX, KEYFRAME_WIDTH_PX = 168, 264, 520
MAX_TURNS, MAX_OFFERED = 40, 12


@dataclass(frozen=True, slots=True)
class KeyframeView:
    """The chosen frame with what was answered and what was right, in pixels of the original frame."""

    picture: Picture
    size: ImageSize
    boxes: tuple[PixelBox, ...]
    points: tuple[PixelPoint, ...]
    negative_points: tuple[PixelPoint, ...]
    truth_boxes: tuple[PixelBox, ...]


@dataclass(frozen=True, slots=True)
class RewardBar:
    """A reward term; `value` None where it did not run, `percent` is the length of its bar."""

    name: str
    value: float | None
    percent: float


@dataclass(frozen=True, slots=True)
class TrajectoryView:
    """One policy's answer to one question."""

    policy: str
    reward: float | None
    rewards: tuple[RewardBar, ...]
    num_search: int
    stop_reason: str
    turns: tuple[TurnView, ...]
    keyframe: KeyframeView | None
    masks: tuple[Picture, ...]
    mean_j: float | None
    """Mean over the frames shown, not over the whole video."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuestionView:
    """A question with the frames offered and every policy's trajectory; `picture` stands for it in
    the list.
    """

    sample_id: str
    question: str
    ability: str
    offered: tuple[Picture, ...]
    steps: tuple[str, ...]
    trajectories: tuple[TrajectoryView, ...]
    picture: Picture | None
    notes: tuple[str, ...]

    @property
    def searched(self) -> bool:
        """Tell whether the last policy looked anything up."""
        return bool(self.trajectories) and self.trajectories[-1].num_search > 0

    @property
    def num_bytes(self) -> int:
        """Size of the embedded pictures."""
        shown = [
            *self.offered,
            *(
                p
                for t in self.trajectories
                for p in (*t.masks, *(f for turn in t.turns for f in turn.pictures))
            ),
        ]
        shown += [t.keyframe.picture for t in self.trajectories if t.keyframe] + (
            [self.picture] if self.picture else []
        )
        return sum(len(picture.uri) for picture in shown)


def choose_questions(sets: Sequence[PredictionSet], count: int) -> list[str]:
    """Pick question ids, taking turns over abilities in file order, those that most policies
    answered first; results are not looked at.
    """
    answered: dict[str, int] = {}
    ability: dict[str, str] = {}
    for predictions in sets:
        for sample_id, prediction in predictions.by_id.items():
            answered[sample_id] = answered.get(sample_id, 0) + 1
            ability.setdefault(sample_id, prediction.ability)
    queues: dict[str, list[str]] = {}
    for sample_id in sorted(answered, key=lambda i: -answered[i]):
        queues.setdefault(ability[sample_id], []).append(sample_id)
    chosen: list[str] = []
    while len(chosen) < count and any(queues.values()):
        chosen += [queue.pop(0) for queue in queues.values() if queue]
    return chosen[:count]


def view_question(sample_id: str, run: Run) -> QuestionView:
    """Gather one question; what cannot be read is named in the notes."""
    predictions = [(s, s.by_id[sample_id]) for s in run.predictions if sample_id in s.by_id]
    reference = predictions[-1][1]
    notes: list[str] = []
    video = _open(reference, notes)
    truth = _Truth.of(sample_id, reference, run)
    trajectories = tuple(
        _view_trajectory(s, prediction, video, truth, run.found_pictures)
        for s, prediction in predictions
    )
    offered = _offered(reference, video, notes) if video else ()
    illustrated = [t.masks for t in reversed(trajectories) if t.masks and t.keyframe] or [
        t.masks for t in trajectories if t.masks
    ]
    return QuestionView(
        sample_id=shorten(sample_id, 80),
        question=shorten(reference.query, LINE_CHARS),
        ability=shorten(reference.ability, 40),
        offered=offered,
        steps=tuple(shorten(step, 160) for step in run.steps.get(sample_id, ())[:8]),
        trajectories=trajectories,
        picture=_telling(illustrated[0]) if illustrated else offered[0] if offered else None,
        notes=tuple(notes),
    )


def _telling(masks: Sequence[Picture]) -> Picture:
    """Return the key frame, or the middle one."""
    return next(
        (picture for picture in masks if picture.caption.startswith("key")), masks[len(masks) // 2]
    )


@dataclass(frozen=True, slots=True)
class _Truth:
    """Ground truth of one question: for every target its boxes by frame id where the prepared row
    has them, masks of all targets together where there are any.
    """

    targets: tuple[Mapping[str, Any], ...]
    masks_dir: Path | None

    @classmethod
    def of(cls, sample_id: str, prediction: PredictionRow, run: Run) -> _Truth:
        source = run.truth_boxes.get(sample_id) or prediction.extra.get("gts")
        return cls(_frames_by_target(source), run.truth_masks.get(sample_id))

    def mask(self, stem: str) -> Mask | None:
        return _mask(self.masks_dir, stem)

    def boxes_on(self, stem: str, size: ImageSize) -> tuple[PixelBox, ...]:
        """Boxes on one frame, in pixels; none where no target is on it or nothing is known."""
        boxes: list[Norm1000Box] = []
        for frames in self.targets:
            entry = frames.get(str(frame_id_of(stem)), frames.get(stem))
            box = read_box(entry.get("bbox_2d")) if isinstance(entry, dict) else None
            if box is not None:
                boxes.append(box)
        mask_HW = None if boxes else self.mask(stem)
        if mask_HW is not None and (tight := mask_box(mask_HW)) is not None:
            boxes.append(box_to_norm1000(tight, ImageSize(mask_HW.shape[1], mask_HW.shape[0])))
        return tuple(box_to_pixels(box, size) for box in boxes)


def _frames_by_target(source: object) -> tuple[Mapping[str, Any], ...]:
    """Read what `data.truth_json` wrote, as far as it can be read: a report shows what there is."""
    try:
        found: object = json.loads(source) if isinstance(source, str) else None
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    fields = cast("dict[str, Any]", found)
    if "targets" not in fields:
        return (fields,)
    entries: object = fields["targets"]
    listed = cast("list[Any]", entries) if isinstance(entries, list) else []
    frames = [entry.get("frames") for entry in listed if isinstance(entry, dict)]
    return tuple(entry for entry in frames if isinstance(entry, dict))


def _open(prediction: PredictionRow, notes: list[str]) -> FrameSource | None:
    if prediction.video_path is None:
        notes.append("the prediction does not say which video it is about")
        return None
    try:
        video = open_video(prediction.video_path)
        _ = video.size
    except (UsageError, OSError, ValueError) as error:
        notes.append(f"no pictures: {error}")
        return None
    return video


def _offered(
    prediction: PredictionRow, video: FrameSource, notes: list[str]
) -> tuple[Picture, ...]:
    """Thumbnails of the frames the policy saw; `caption` is the frame id it read beside each."""
    pictures: list[Picture] = []
    for stem in prediction.frame_names[:MAX_OFFERED]:
        position = _position(stem, video)
        if position is None:
            notes.append(f"frame {shorten(stem, 40)} was offered but is not in the video")
            continue
        frame_id = frame_id_of(stem)
        pictures.append(
            embed(
                video.read(position),
                OFFERED_WIDTH_PX,
                shorten(stem if frame_id is None else str(frame_id), 20),
                quality=68,
            )
        )
    if len(prediction.frame_names) > MAX_OFFERED:
        notes.append(
            f"{len(prediction.frame_names) - MAX_OFFERED} more frames were offered than are shown"
        )
    return tuple(pictures)


def _position(stem: str, video: FrameSource) -> FramePosition | None:
    if stem in video.names:
        return FramePosition(list(video.names).index(stem))
    frame_id = frame_id_of(stem)
    return None if frame_id is None else position_of(frame_id, video.names)


def _view_trajectory(
    source: PredictionSet,
    prediction: PredictionRow,
    video: FrameSource | None,
    truth: _Truth,
    found_pictures: Mapping[str, Path],
) -> TrajectoryView:
    notes: list[str] = []
    keyframe_id = prediction.prediction.keyframe_id
    keyframe_position = (
        position_of(keyframe_id, video.names) if keyframe_id is not None and video else None
    )
    strip = _MaskStrip()
    if video and (source.masks_dir or truth.masks_dir):
        folder = (
            source.masks_dir / prediction.sample_id
            if source.masks_dir and _is_plain_name(prediction.sample_id)
            else None
        )
        strip = _draw_masks(folder, truth, video, keyframe_position)
        if source.masks_dir and not strip.num_predicted:
            notes.append("no predicted masks for this question")
    if keyframe_id is None:
        notes.append("no key frame was chosen, so nothing could be segmented")
    elif video and keyframe_position is None:
        notes.append(f"the chosen frame {keyframe_id} is not in the video")
    if len(prediction.turns) > MAX_TURNS:
        notes.append(f"{len(prediction.turns) - MAX_TURNS} more turns are not shown")
    return TrajectoryView(
        policy=shorten(source.name, 40),
        reward=_finite(prediction.score),
        rewards=tuple(_bar(name, value) for name, value in list(prediction.rewards.items())[:16]),
        num_search=prediction.num_search,
        stop_reason=shorten(prediction.stop_reason, 60),
        turns=tuple(view_turn(turn, found_pictures) for turn in prediction.turns[:MAX_TURNS]),
        keyframe=None
        if keyframe_position is None or video is None
        else _keyframe(prediction, video, keyframe_position, truth),
        masks=strip.pictures,
        mean_j=strip.mean_j,
        notes=tuple(notes),
    )


def _finite(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if number and math.isfinite(value) else None


def _bar(name: str, value: float | None) -> RewardBar:
    known = _finite(value)
    return RewardBar(shorten(name, 40), known, 100 * min(max(known or 0.0, 0.0), 1.0))


def _keyframe(
    prediction: PredictionRow, video: FrameSource, position: FramePosition, truth: _Truth
) -> KeyframeView:
    image = video.read(position)
    size = ImageSize(*image.size)

    def in_pixels(points: Iterable[Norm1000Point]) -> tuple[PixelPoint, ...]:
        return tuple(point_to_pixels(point, size) for point in points)

    return KeyframeView(
        picture=embed(
            image,
            KEYFRAME_WIDTH_PX,
            f"frame {prediction.prediction.keyframe_id}",
            quality=80,
        ),
        size=size,
        boxes=tuple(
            box_to_pixels(region.box, size)
            for region in prediction.prediction.objects
            if region.box
        ),
        points=in_pixels(
            point for region in prediction.prediction.objects for point in region.points
        ),
        negative_points=in_pixels(
            point for region in prediction.prediction.objects for point in region.negative_points
        ),
        truth_boxes=truth.boxes_on(video.names[position], size),
    )


class _MaskStrip(NamedTuple):
    pictures: tuple[Picture, ...] = ()
    mean_j: float | None = None
    num_predicted: int = 0


def _draw_masks(
    folder: Path | None, truth: _Truth, video: FrameSource, keyframe: FramePosition | None
) -> _MaskStrip:
    """Draw masks on a few frames; the mean J is over those that have a truth (a missing prediction
    scores 0).
    """
    pictures: list[Picture] = []
    scores: list[float] = []
    num_predicted = 0
    for position in spread(len(video), NUM_MASK_FRAMES, keyframe):
        stem = video.names[position]
        predicted, right = _mask(folder, stem), truth.mask(stem)
        num_predicted += predicted is not None
        label = stem if frame_id_of(stem) is None else str(frame_id_of(stem))
        if right is not None:
            scores.append(_j(right, predicted))
            label += f" · J {100 * scores[-1]:.0f}"
        elif predicted is None:
            label += " · no mask"
        frame = overlay_masks(video.read(position), predicted, right, MASK_WIDTH_PX)
        pictures.append(
            embed(
                frame,
                MASK_WIDTH_PX,
                ("key frame " if position == keyframe else "frame ") + shorten(label, 40),
                quality=72,
            )
        )
    return _MaskStrip(tuple(pictures), sum(scores) / len(scores) if scores else None, num_predicted)


def _j(right_HW: Mask, predicted_HW: Mask | None) -> float:
    if predicted_HW is None:
        predicted_HW = np.zeros_like(right_HW)
    return (
        float(jaccard(right_HW[None], predicted_HW[None])[0])
        if right_HW.shape == predicted_HW.shape
        else 0.0
    )


def spread(num_frames: int, count: int, keyframe: int | None) -> list[FramePosition]:
    """Choose positions evenly over a video, first and last among them, the key frame in place of
    the nearest.
    """
    count = min(count, num_frames)
    positions = [round(i * (num_frames - 1) / max(1, count - 1)) for i in range(count)]
    if keyframe is not None and keyframe not in positions:
        nearest = min(range(count), key=lambda i: abs(positions[i] - keyframe))
        positions[nearest] = keyframe
    return [FramePosition(position) for position in positions]


def _mask(folder: Path | None, stem: str) -> Mask | None:
    if folder is None:
        return None
    try:
        return read_mask(folder / f"{stem}.png")
    except (UsageError, OSError, ValueError):
        return None


def _is_plain_name(name: str) -> bool:
    """Tell whether an id can be a folder name; one with separators or dots alone would lead
    elsewhere.
    """
    return not ({"/", "\\", "\0"} & set(name)) and name not in {"", ".", ".."}
