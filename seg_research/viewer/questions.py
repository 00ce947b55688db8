"""Which questions a page shows, and one question with what each policy made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from seg_common.errors import UsageError
from seg_research.core.video import FramePosition, FrameSource, frame_id_of, open_video, position_of
from seg_research.records.schema import PredictionRow
from seg_research.viewer.mask_strip import KEYFRAME_CAPTION
from seg_research.viewer.run_folder import PredictionSet, Run
from seg_research.viewer.text import shorten
from seg_research.viewer.thumbnails import Thumbnail, embed
from seg_research.viewer.trajectory import TrajectoryView, view_trajectory
from seg_research.viewer.truth import TruthView

OFFERED_WIDTH_PX = 168
MAX_OFFERED, MAX_STEPS = 12, 8
QUESTION_CHARS = 600


@dataclass(frozen=True, slots=True)
class QuestionView:
    """A question with the frames offered and every policy's trajectory.

    Attributes:
        steps: what a person would look up.
        image: stands for it in the list.
    """

    sample_id: str
    question: str
    ability: str
    offered: tuple[Thumbnail, ...]
    steps: tuple[str, ...]
    trajectories: tuple[TrajectoryView, ...]
    image: Thumbnail | None
    notes: tuple[str, ...]

    @property
    def searched(self) -> bool:
        """Whether the last policy looked anything up."""
        return bool(self.trajectories) and self.trajectories[-1].num_search > 0

    @property
    def num_bytes(self) -> int:
        """Size of the embedded images."""
        shown = [*self.offered, *([self.image] if self.image else [])]
        shown += chain.from_iterable(trajectory.images for trajectory in self.trajectories)
        return sum(len(image.uri) for image in shown)


def choose_questions(sets: Sequence[PredictionSet], count: int) -> list[str]:
    """Pick question ids, taking turns over abilities in file order, those that most policies
    answered first; results are not looked at.
    """
    answered: dict[str, int] = {}
    ability: dict[str, str] = {}
    for predictions in sets:
        for sample_id, row in predictions.by_id.items():
            answered[sample_id] = answered.get(sample_id, 0) + 1
            ability.setdefault(sample_id, row.ability)
    queues: dict[str, list[str]] = {}
    for sample_id in sorted(answered, key=lambda i: -answered[i]):
        queues.setdefault(ability[sample_id], []).append(sample_id)
    chosen: list[str] = []
    while len(chosen) < count and any(queues.values()):
        chosen += [queue.pop(0) for queue in queues.values() if queue]
    return chosen[:count]


def view_question(sample_id: str, run: Run) -> QuestionView:
    """Gather one question; what cannot be read is named in the notes."""
    rows = [(s, s.by_id[sample_id]) for s in run.predictions if sample_id in s.by_id]
    reference = rows[-1][1]
    notes: list[str] = []
    video = _open(reference, notes)
    gts = run.ground_truths.get(sample_id) or reference.extra.get("gts")
    truth = TruthView.of(gts, run.truth_masks.get(sample_id))
    trajectories = tuple(
        view_trajectory(source, row, video, truth, run.found_images) for source, row in rows
    )
    offered = _view_offered(reference, video, notes) if video else ()
    return QuestionView(
        sample_id=shorten(sample_id, 80),
        question=shorten(reference.query, QUESTION_CHARS),
        ability=shorten(reference.ability, 40),
        offered=offered,
        steps=tuple(shorten(step, 160) for step in run.steps.get(sample_id, ())[:MAX_STEPS]),
        trajectories=trajectories,
        image=_telling(trajectories, offered),
        notes=tuple(notes),
    )


def _telling(
    trajectories: Sequence[TrajectoryView], offered: Sequence[Thumbnail]
) -> Thumbnail | None:
    """Return the key frame with the masks of the last policy that has some, or the middle one."""
    illustrated = [one.masks for one in reversed(trajectories) if one.masks and one.located]
    illustrated += [one.masks for one in trajectories if one.masks]
    if not illustrated:
        return offered[0] if offered else None
    masks = illustrated[0]
    keyframes = (image for image in masks if image.caption.startswith(KEYFRAME_CAPTION))
    return next(keyframes, masks[len(masks) // 2])


def _open(row: PredictionRow, notes: list[str]) -> FrameSource | None:
    if row.video_path is None:
        notes.append("the prediction does not say which video it is about")
        return None
    try:
        video = open_video(row.video_path)
        _ = video.size
    except (UsageError, OSError, ValueError) as error:
        notes.append(f"no images: {error}")
        return None
    return video


def _view_offered(
    row: PredictionRow, video: FrameSource, notes: list[str]
) -> tuple[Thumbnail, ...]:
    """Return thumbnails of the frames the policy saw; a caption is the frame id it read."""
    images: list[Thumbnail] = []
    for stem in row.frame_names[:MAX_OFFERED]:
        position = _position(stem, video)
        if position is None:
            notes.append(f"frame {shorten(stem, 40)} was offered but is not in the video")
            continue
        frame_id = frame_id_of(stem)
        caption = shorten(stem if frame_id is None else str(frame_id), 20)
        images.append(embed(video.read(position), OFFERED_WIDTH_PX, caption, quality=68))
    if len(row.frame_names) > MAX_OFFERED:
        notes.append(
            f"{len(row.frame_names) - MAX_OFFERED} more frames were offered than are shown"
        )
    return tuple(images)


def _position(stem: str, video: FrameSource) -> FramePosition | None:
    if stem in video.names:
        return FramePosition(list(video.names).index(stem))
    frame_id = frame_id_of(stem)
    return None if frame_id is None else position_of(frame_id, video.names)
