"""Training examples with images: name and locate figures in a key frame, and find the frames that
show one.
"""

from __future__ import annotations

from collections.abc import Sequence

from seg_research.mini.pretraining_data.clips import Clip
from seg_research.mini.pretraining_data.referring_expressions import (
    direct_expressions,
    relational_expressions,
)
from seg_research.mini.pretraining_data.scenes import VisibleFigure, draw_scene
from seg_research.mini.pretraining_data.training_example import (
    ASSISTANT,
    END,
    SplitRandom,
    SquareImage,
    TrainingExample,
    region,
    system,
)

_WITH_SYSTEM, _LISTED, _ROUNDABOUT, _COMPOSED = 0.25, 0.3, 0.35, 0.35
_FRAMES_LISTED = 0.4
_HINT = 0.05


def keyframe_message(frame_id: int, image: str) -> str:
    """Return the words with which the key-frame tool shows a frame."""
    return f"Frame {frame_id} in high resolution: {image}"


def frame_lines(example: TrainingExample, clip: Clip) -> str:
    """Show all thumbnails of a clip, and return the lines of the opening prompt."""
    pairs = zip(clip.frame_ids, clip.frames_THWC, strict=True)
    return (
        "".join(f"frame {frame_id} {example.add_image(frame)}\n" for frame_id, frame in pairs)
        + "\n"
    )


def few_figures(rng: SplitRandom) -> TrainingExample:
    """Locate one to three figures."""
    while True:
        image, seen = draw_scene(rng, rng.choice([1, 1, 2, 3]))
        if seen:
            return _locate(rng, image, rng.randrange(100), seen, [""] * len(seen))


def many_figures(rng: SplitRandom, clips: Sequence[Clip]) -> TrainingExample:
    """Locate all figures of a key frame."""
    if rng.random() < _COMPOSED:
        image, seen = draw_scene(rng, rng.choice([5, 6, 7]))
        return _locate(rng, image, rng.randrange(100), seen, [""] * len(seen))
    clip = rng.choice(clips)
    frame = rng.randrange(len(clip.frame_ids))
    seen = clip.seen(frame)
    clues: dict[str, list[str]] = {}
    for expression in (*relational_expressions(clip), *direct_expressions(clip)):
        if expression.clue:
            clues.setdefault(clip.looks[expression.target].words, []).append(expression.clue)
    chosen = [
        rng.choice(clues[s.look.words])
        if s.look.words in clues and rng.random() < _ROUNDABOUT
        else ""
        for s in seen
    ]
    return _locate(rng, clip.keyframes_THWC[frame], clip.frame_ids[frame], seen, chosen)


def _locate(
    rng: SplitRandom,
    image: SquareImage,
    frame_id: int,
    seen: Sequence[VisibleFigure],
    clues: Sequence[str],
) -> TrainingExample:
    example = TrainingExample()
    shown = example.add_image(image)
    opening = (
        system() if rng.random() < _WITH_SYSTEM else ""
    ) + f"<|im_start|>user\n{keyframe_message(frame_id, shown)}"
    asked = list(zip(seen, clues, strict=True))
    rng.shuffle(asked)
    if len(seen) > 1 and rng.random() < _LISTED:
        example.add_context(f"{opening} from left to right{END}{ASSISTANT}<thinking>")
        in_order = sorted(seen, key=lambda s: s.box[0] + s.box[2])
        example.add_target(",".join(f" {s.look.words}" for s in in_order) + f" </thinking>{END}")
        asked = asked[:4]
    else:
        example.add_context(opening + END)
    for figure, clue in asked:
        example.add_context(ASSISTANT)
        if clue:
            example.add_context(f"<thinking> {clue}:")
            example.add_target(f" {figure.look.words}")
        else:
            example.add_target(f"<thinking> {figure.look.words}", 1.0 if len(seen) == 1 else _HINT)
        example.add_target(
            f" </thinking>\n<answer> {region(figure.box, figure.point)} </answer>{END}"
        )
    return example


def frames_of_figures(rng: SplitRandom, clips: Sequence[Clip]) -> TrainingExample:
    """Choose a frame for every figure of a clip, or list what frames show."""
    clip, example = rng.choice(clips), TrainingExample()
    example.add_context(f"{system()}<|im_start|>user\n{frame_lines(example, clip)}{END}")
    if rng.random() < _FRAMES_LISTED:
        for frame in rng.sample(range(len(clip.frame_ids)), 3):
            example.add_context(f"{ASSISTANT}<thinking> frame {clip.frame_ids[frame]}:")
            in_order = sorted(clip.seen(frame), key=lambda s: s.box[0] + s.box[2])
            example.add_target(
                ",".join(f" {s.look.words}" for s in in_order) + f" </thinking>{END}"
            )
        return example
    figures = clip.ever_seen()
    rng.shuffle(figures)
    for n in figures:
        frame_id = clip.frame_ids[rng.choice(clip.good_frames(n))]
        example.add_context(ASSISTANT)
        example.add_target(f"<thinking> {clip.looks[n].words}.", _HINT)
        example.add_target(f" frame {frame_id} </thinking>\n<keyframe> {frame_id} </keyframe>{END}")
    return example
