"""Lessons with pictures: name and locate figures in a key frame, and find the frames that show one."""

from __future__ import annotations

from collections.abc import Sequence

from seg_research.mini.pretraining_data.clips import Clip
from seg_research.mini.pretraining_data.lesson import (
    ASSISTANT,
    END,
    Draw,
    Lesson,
    Picture,
    region,
    system,
)
from seg_research.mini.pretraining_data.referring_expressions import plain, relations
from seg_research.mini.pretraining_data.scenes import Seen, draw_scene

_WITH_SYSTEM, _LISTED, _ROUNDABOUT, _COMPOSED = 0.25, 0.3, 0.35, 0.35
_FRAMES_LISTED = 0.4
_HINT = 0.05


def keyframe_message(frame_id: int, picture: str) -> str:
    """Return the words with which the key-frame tool shows a frame."""
    return f"Frame {frame_id} in high resolution: {picture}"


def frame_lines(lesson: Lesson, clip: Clip) -> str:
    """Show all thumbnails of a clip, and return the lines of the opening prompt."""
    pairs = zip(clip.frame_ids, clip.frames_THWC, strict=True)
    return (
        "".join(f"frame {frame_id} {lesson.picture(frame)}\n" for frame_id, frame in pairs) + "\n"
    )


def few_figures(rng: Draw) -> Lesson:
    """Locate one to three figures."""
    while True:
        picture, seen = draw_scene(rng, rng.choice([1, 1, 2, 3]))
        if seen:
            return _locate(rng, picture, rng.randrange(100), seen, [""] * len(seen))


def many_figures(rng: Draw, clips: Sequence[Clip]) -> Lesson:
    """Locate all figures of a key frame."""
    if rng.random() < _COMPOSED:
        picture, seen = draw_scene(rng, rng.choice([5, 6, 7]))
        return _locate(rng, picture, rng.randrange(100), seen, [""] * len(seen))
    clip = rng.choice(clips)
    frame = rng.randrange(len(clip.frame_ids))
    seen = clip.seen(frame)
    clues: dict[str, list[str]] = {}
    for way in (*relations(clip), *plain(clip)):
        if way.clue:
            clues.setdefault(clip.looks[way.target].words, []).append(way.clue)
    chosen = [
        rng.choice(clues[s.look.words])
        if s.look.words in clues and rng.random() < _ROUNDABOUT
        else ""
        for s in seen
    ]
    return _locate(rng, clip.keyframes_THWC[frame], clip.frame_ids[frame], seen, chosen)


def _locate(
    rng: Draw, picture: Picture, frame_id: int, seen: Sequence[Seen], clues: Sequence[str]
) -> Lesson:
    lesson = Lesson()
    shown = lesson.picture(picture)
    opening = (
        system() if rng.random() < _WITH_SYSTEM else ""
    ) + f"<|im_start|>user\n{keyframe_message(frame_id, shown)}"
    asked = list(zip(seen, clues, strict=True))
    rng.shuffle(asked)
    if len(seen) > 1 and rng.random() < _LISTED:
        lesson.show(f"{opening} from left to right{END}{ASSISTANT}<thinking>")
        in_order = sorted(seen, key=lambda s: s.box[0] + s.box[2])
        lesson.say(",".join(f" {s.look.words}" for s in in_order) + f" </thinking>{END}")
        asked = asked[:4]
    else:
        lesson.show(opening + END)
    for figure, clue in asked:
        lesson.show(ASSISTANT)
        if clue:
            lesson.show(f"<thinking> {clue}:")
            lesson.say(f" {figure.look.words}")
        else:
            lesson.say(f"<thinking> {figure.look.words}", 1.0 if len(seen) == 1 else _HINT)
        lesson.say(f" </thinking>\n<answer> {region(figure.box, figure.point)} </answer>{END}")
    return lesson


def frames_of_figures(rng: Draw, clips: Sequence[Clip]) -> Lesson:
    """Choose a frame for every figure of a clip, or list what frames show."""
    clip, lesson = rng.choice(clips), Lesson()
    lesson.show(f"{system()}<|im_start|>user\n{frame_lines(lesson, clip)}{END}")
    if rng.random() < _FRAMES_LISTED:
        for frame in rng.sample(range(len(clip.frame_ids)), 3):
            lesson.show(f"{ASSISTANT}<thinking> frame {clip.frame_ids[frame]}:")
            in_order = sorted(clip.seen(frame), key=lambda s: s.box[0] + s.box[2])
            lesson.say(",".join(f" {s.look.words}" for s in in_order) + f" </thinking>{END}")
        return lesson
    figures = clip.ever_seen()
    rng.shuffle(figures)
    for n in figures:
        frame_id = clip.frame_ids[rng.choice(clip.good_frames(n))]
        lesson.show(ASSISTANT)
        lesson.say(f"<thinking> {clip.looks[n].words}.", _HINT)
        lesson.say(f" frame {frame_id} </thinking>\n<keyframe> {frame_id} </keyframe>{END}")
    return lesson
