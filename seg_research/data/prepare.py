"""From what a benchmark ships to prepared rows: the part that every benchmark shares.

Frames are chosen, their shown size is set, and what the masks tell of every target is measured. The
steps and the numbers are those of Seg-ReSearch's preparation. What differs is deliberate: the
random draw is seeded per sample, a frame is never offered twice, any non-zero mask pixel is target
(as the evaluation has it), and a fault in the data names its row.

Rows are prepared in several processes and kept in a file beside the result until all are there, so
that an interrupted preparation continues where it was; rows whose files changed since are prepared
again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from seg_common.errors import UsageError
from seg_common.files import append_jsonl, read_jsonl, repair_jsonl
from seg_research.core.geometry import ImageSize
from seg_research.core.masks import Mask
from seg_research.core.seeding import derive_seed
from seg_research.core.video import FRAME_SUFFIXES, frame_id_of, read_image
from seg_research.data.measure import measure_frames
from seg_research.data.parallel import Progress, map_ordered
from seg_research.data.preparation import Preparation
from seg_research.data.question import BenchmarkQuestion, QuestionTarget
from seg_research.data.reader import BenchmarkReader
from seg_research.data.rows import VERSION, write_rows
from seg_research.data.sample import FrameRole
from seg_research.data.splits import Split


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of a preparation: the file, its number of rows, and the complaints about rows left
    out.
    """

    path: Path
    num_rows: int
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _PreparedQuestion:
    """What came of one question: its row, or why there is none. `key` tells by what it was made."""

    key: str
    row: dict[str, Any] | None = None
    complaint: str = ""


def prepare(
    reader: BenchmarkReader,
    root: Path,
    preparation: Preparation,
    workers: int = 1,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare one split of a benchmark folder and write the rows, and what the evaluation needs to
    know, beside the benchmark's own.

    Raises:
        UsageError: something in the folder is missing, unreadable or inconsistent; names file and
            row.
    """
    root = root.resolve()
    if preparation.split not in reader.splits:
        raise UsageError(
            f"{reader.name} has no {preparation.split} split; there are: {', '.join(reader.splits)}"
        )
    questions = reader.read(root, preparation.split)
    _check_ids(questions)
    out = root / preparation.file_name
    unfinished = out.with_suffix(".unfinished.jsonl")
    work = _Work(reader.name, preparation)
    outcomes = list(_resumed(work, questions, unfinished, workers, progress))
    rows = [outcome.row for outcome in outcomes if outcome.row is not None]
    skipped = tuple(outcome.complaint for outcome in outcomes if outcome.row is None)
    if not rows:
        first = f"; the first: {skipped[0]}" if skipped else " (the file is empty)"
        raise UsageError(f"{root}: no usable row in {preparation.split}{first}")
    write_rows(out, rows)
    kept = {row["id"] for row in rows}
    reader.write_truth(root, preparation.split, [q for q in questions if q.question_id in kept])
    unfinished.unlink(missing_ok=True)
    return Prepared(out, len(rows), skipped)


def _check_ids(questions: Sequence[BenchmarkQuestion]) -> None:
    first: dict[str, BenchmarkQuestion] = {}
    for question in questions:
        earlier = first.setdefault(question.question_id, question)
        if earlier is not question:
            raise UsageError(
                f"{question.where}: id {question.question_id!r} was used by row {earlier.index} "
                "already; ids must differ"
            )


def _resumed(
    work: _Work,
    questions: Sequence[BenchmarkQuestion],
    unfinished: Path,
    workers: int,
    progress: Progress | None,
) -> Iterator[_PreparedQuestion]:
    """Yield what came of each question, in order; what `unfinished` holds is not made again, and
    what is made is added to it.
    """
    repair_jsonl(unfinished)
    stored = list(read_jsonl(unfinished)) if unfinished.is_file() else []
    rows = {str(entry["key"]): entry["row"] for entry in stored}
    keys = [work.key(question) if rows else "" for question in questions]
    todo = [question for question, key in zip(questions, keys, strict=True) if key not in rows]
    reused = len(questions) - len(todo)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(reused + done, reused + total)

    made = map_ordered(work, todo, workers, report)
    for key in keys:
        if key in rows:
            yield _PreparedQuestion(key, rows[key])
            continue
        outcome = next(made)
        if outcome.row is not None:
            append_jsonl(unfinished, {"key": outcome.key, "row": outcome.row})
        yield outcome


@dataclass(frozen=True, slots=True)
class _Work:
    """Prepares one question after the other, in any process."""

    reader_name: str
    preparation: Preparation

    def __call__(self, question: BenchmarkQuestion) -> _PreparedQuestion:
        """Prepare one row; where skipping is allowed, a faulty one is answered with the complaint.

        Raises:
            UsageError: it is faulty; names the row.
        """
        key = self.key(question)
        try:
            return _PreparedQuestion(
                key, _prepare_row(self.reader_name, self.preparation, question)
            )
        except UsageError as error:
            complaint = f"{question.where}: {error}"
        if self.preparation.skip_bad:
            return _PreparedQuestion(key, complaint=complaint)
        is_train = self.preparation.split is Split.TRAIN
        raise UsageError(complaint + "; or leave faulty rows out with --skip-bad" * is_train)

    def key(self, question: BenchmarkQuestion) -> str:
        """Digest all that a row is made of; of files, where they lie and when they were written."""
        frames = list(_find_frames(question).values())
        masks = list(chain.from_iterable(target.masks.files() for target in question.targets))
        files = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in frames + masks
        ]
        preparation = replace(self.preparation, skip_bad=False)
        made_of = (VERSION, self.reader_name, preparation, question, files)
        return hashlib.sha256(repr(made_of).encode()).hexdigest()


def _prepare_row(
    reader_name: str, preparation: Preparation, question: BenchmarkQuestion
) -> dict[str, Any]:
    """Make the row of one question; complaints do not name it yet."""
    frames = _list_frames(question)
    anchored = preparation.split is Split.TRAIN and not question.absent
    draw = derive_seed(preparation.seed, reader_name, "anchor", question.question_id)
    chosen = [
        frames[position]
        for position in _choose_frames(preparation, question, frames, draw if anchored else None)
    ]
    size = _common_size(chosen)
    shown = preparation.shown_size(size)
    targets = [
        {
            "id": target.target_id,
            "frames": measure_frames(
                _read_masks(target, chosen, size), shown, preparation.coordinates
            ),
        }
        for target in question.targets
    ]
    _check_presence(question, targets, anchored=anchored)
    return {
        "data_source": question.data_source,
        "images": [
            {
                "image": str(path),
                "resized_height": shown.height_px,
                "resized_width": shown.width_px,
                "role": str(FrameRole.OFFERED),
            }
            for path in chosen
        ],
        "ability": question.ability,
        "id": question.question_id,
        "video_path": str(question.video),
        "question": question.question,
        "reward_model": {
            "ground_truth": json.dumps({"targets": [] if question.absent else targets}),
            "steps": list(question.steps),
            "absent": question.absent,
            "difficulty": question.difficulty,
        },
        "extra_info": {
            "split": str(preparation.split),
            "index": question.index,
            "height": size.height_px,
            "width": size.width_px,
            "coordinates": str(preparation.coordinates),
        },
    }


def _check_presence(
    question: BenchmarkQuestion, targets: Sequence[dict[str, Any]], *, anchored: bool
) -> None:
    """See that the masks agree with what the question says of its target."""
    shown = sorted(map(int, chain.from_iterable(target["frames"] for target in targets)))
    if anchored and not shown:
        raise UsageError("the target is on none of the frames offered; correct its annotations")
    if question.absent and shown:
        raise UsageError(
            f"`absent` is true, but a mask shows the target on frame {shown[0]}; correct one of "
            "the two"
        )


def _find_frames(question: BenchmarkQuestion) -> dict[str, Path]:
    """Return the frames of the question's video by stem, those that belong to it."""
    if not question.video.is_dir():
        return {}
    wanted = set(question.stems)
    return {
        path.stem: path
        for path in sorted(question.video.iterdir())
        if path.stem in wanted and path.suffix.lower() in FRAME_SUFFIXES
    }


def _list_frames(question: BenchmarkQuestion) -> list[Path]:
    """Find the question's frames, in temporal order."""
    stems = question.stems
    if not question.video.is_dir():
        raise UsageError(f"no video folder {question.video}; unpack the frames there")
    if not stems:
        raise UsageError("lists no frames")
    bad = next((stem for stem in stems if frame_id_of(stem) is None), None)
    if bad is not None:
        raise UsageError(
            f"frame {bad!r} of {question.video} is not named by a number; rename the frames, e.g. "
            "00000.jpg"
        )
    if len({int(stem) for stem in stems}) < len(stems):
        raise UsageError("two of the frames listed have the same number; every frame needs its own")
    found = _find_frames(question)
    missing = [stem for stem in stems if stem not in found]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(stems)} frames are missing in {question.video}, the first is "
            f"{missing[0]!r}"
        )
    return [found[stem] for stem in sorted(stems, key=int)]


def _choose_frames(
    preparation: Preparation,
    question: BenchmarkQuestion,
    frames: Sequence[Path],
    draw: int | None,
) -> list[int]:
    """Choose positions, evenly spaced; with a `draw` (a seed), one of them moves to a random frame
    that shows a target.
    """
    known = [(target.masks, target.masks.stems()) for target in question.targets]
    total, wanted = len(frames), preparation.num_frames
    if total <= wanted:
        return list(range(total))
    positions = [int(position) for position in np.linspace(0, total - 1, wanted)]
    if draw is not None and wanted > 1:

        def shows_a_target(stem: str) -> bool:
            return any(stem in stems and masks.read(stem).any() for masks, stems in known)

        shows = [n for n, path in enumerate(frames) if shows_a_target(path.stem)]
        if not shows:
            raise UsageError(
                "the target is on no frame of the video (all masks are empty or missing); correct "
                "its annotations"
            )
        anchor = random.Random(draw).choice(shows)
        nearest = min(range(wanted), key=lambda i: abs(positions[i] - anchor))
        positions[nearest] = anchor
    return sorted(set(positions))


def _common_size(frames: Sequence[Path]) -> ImageSize:
    """Decode the frames that will be shown, and return the size they share."""
    sizes: dict[ImageSize, Path] = {}
    for path in frames:
        sizes.setdefault(ImageSize(*read_image(path).size), path)
    if len(sizes) > 1:
        found = [f"{path.name} {size.width_px}x{size.height_px}" for size, path in sizes.items()]
        raise UsageError(f"frames of different sizes ({', '.join(found)}); extract the video again")
    return next(iter(sizes))


def _read_masks(target: QuestionTarget, frames: Sequence[Path], size: ImageSize) -> dict[int, Mask]:
    """Read a target's masks on some frames, by frame id."""
    known = target.masks.stems()
    masks: dict[int, Mask] = {}
    for stem in (path.stem for path in frames if path.stem in known):
        mask_HW = target.masks.read(stem)
        if mask_HW.shape != (size.height_px, size.width_px):
            found = "x".join(map(str, reversed(mask_HW.shape)))
            raise UsageError(
                f"the mask of target {target.target_id} on frame {stem} is {found}, its frame "
                f"{size.width_px}x{size.height_px}"
            )
        masks[int(stem)] = mask_HW
    return masks
