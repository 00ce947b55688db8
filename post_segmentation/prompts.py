"""From a prediction (thousandths of a frame) to prompts in pixels, and where its masks go.

Ids come from files that others wrote: they become folder names only after `mask_folder` has looked
at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from post_segmentation.backend import PromptKind
from post_segmentation.propagator import MaskPrompt
from seg_common.errors import UsageError
from seg_research.core.geometry import box_to_pixels, point_to_pixels
from seg_research.core.masks import Mask, mask_box
from seg_research.core.prediction import PredictedObject
from seg_research.core.rle import Rle
from seg_research.core.video import FrameId, FramePosition, FrameSource, position_of

MAX_NAME_BYTES = 200


def mask_folder(root: Path, sample_id: str) -> Path:
    """Return the folder of a sample's masks; `/` in an id makes subfolders, as ReasonVOS ids have
    them.

    Raises:
        UsageError: the id is absolute, hidden, climbs out of the folder, or cannot be a file name.
    """
    parts = sample_id.split("/")
    if not all(_is_file_name(part) for part in parts):
        raise UsageError(
            f"id {sample_id[:80]!r} cannot name a folder of masks;"
            " expected printable names joined by '/', none starting with '.'"
        )
    return root / PurePosixPath(*parts)


def _is_file_name(part: str) -> bool:
    if not part or part.startswith(".") or not part.isprintable() or "\\" in part:
        return False
    return len(part.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES


def read_prompts(
    objects: Iterable[PredictedObject], frames: FrameSource, usable: AbstractSet[PromptKind]
) -> tuple[MaskPrompt, ...]:
    """Return one prompt an object, in pixels of the video, on the object's own frame, which is
    found by its number.

    An object whose mask is empty, and of which nothing else is known, is not there: it has none.

    Args:
        objects: of one prediction.
        frames: the video.
        usable: what the back-end can be told.

    Raises:
        UsageError: the video has no frame of that number, a mask is broken, or the back-end can use
            nothing that is known of an object.
    """
    prompts = (_read_prompt(found, frames) for found in objects)
    return tuple(keep_usable(prompt, usable) for prompt in prompts if prompt is not None)


def _read_prompt(found: PredictedObject, frames: FrameSource) -> MaskPrompt | None:
    position = find_frame(found.frame_id, frames)
    size = frames.size
    mask_HW = None if found.mask is None else _read_mask(found.mask, frames)
    if mask_HW is not None and not mask_HW.any():
        if found.box is None and not found.points:
            return None
        mask_HW = None
    return MaskPrompt(
        position=position,
        box=None if found.box is None else box_to_pixels(found.box, size),
        points=tuple(point_to_pixels(point, size) for point in found.points),
        negative_points=tuple(point_to_pixels(point, size) for point in found.negative_points),
        mask_HW=mask_HW,
    )


def _read_mask(encoded: Rle, frames: FrameSource) -> Mask:
    """Return a policy's mask in the video's size: it may have seen the frame in another one."""
    mask_HW = encoded.decode()
    width_px, height_px = frames.size
    if mask_HW.shape == (height_px, width_px):
        return mask_HW
    resized = cv2.resize(
        mask_HW.astype(np.float32), (width_px, height_px), interpolation=cv2.INTER_LINEAR
    )
    return resized >= 0.5


def keep_usable(prompt: MaskPrompt, usable: AbstractSet[PromptKind]) -> MaskPrompt:
    """Return the prompt without what a back-end cannot use. A mask says all of an object: where it
    can be used, the rest is left out; where only boxes can, its box stands for it.

    Raises:
        UsageError: nothing usable is left.
    """
    if prompt.mask_HW is not None and PromptKind.MASK in usable:
        return replace(prompt, box=None, points=(), negative_points=())
    kept = replace(
        prompt,
        box=prompt.box if PromptKind.BOX in usable else None,
        points=prompt.points if PromptKind.POINTS in usable else (),
        negative_points=prompt.negative_points if PromptKind.NEGATIVE_POINTS in usable else (),
        mask_HW=None,
    )
    if kept.box is not None or kept.points:
        return kept
    if prompt.mask_HW is not None and PromptKind.BOX in usable:
        return replace(kept, box=mask_box(prompt.mask_HW))
    known = [kind for kind, there in _kinds(prompt.box, prompt.points, prompt.mask_HW) if there]
    raise UsageError(
        f"of an object only {' and '.join(known)} are known, and the back-end takes"
        f" {', '.join(sorted(usable))}"
    )


def _kinds(
    box: object | None, points: Sequence[object], mask: object | None
) -> tuple[tuple[PromptKind, bool], ...]:
    return (
        (PromptKind.BOX, box is not None),
        (PromptKind.POINTS, bool(points)),
        (PromptKind.MASK, mask is not None),
    )


def count_unused(
    objects: Iterable[PredictedObject], usable: AbstractSet[PromptKind]
) -> Counter[PromptKind]:
    """Count the objects that say something which a back-end cannot use, by what it is."""
    unused: Counter[PromptKind] = Counter()
    for found in objects:
        given = {kind for kind, there in _kinds(found.box, found.points, found.mask) if there}
        if found.negative_points:
            given.add(PromptKind.NEGATIVE_POINTS)
        unused.update(given - usable)
    return unused


def find_frame(frame_id: FrameId, frames: FrameSource) -> FramePosition:
    """Return the position of a frame by the number in its name, never by counting: real videos
    number with gaps.

    Raises:
        UsageError: the video has no such frame.
    """
    position = position_of(frame_id, frames.names)
    if position is None:
        raise UsageError(
            f"key frame {frame_id} is not in the video;"
            f" its {len(frames)} frames run from {frames.names[0]} to {frames.names[-1]}"
        )
    return position


def check_frame_size(actual: tuple[int, int], frames: FrameSource, position: FramePosition) -> None:
    """Check that a frame has the size of the first one.

    Raises:
        UsageError: it has not; coordinates and masks of the video would have no meaning.
    """
    if actual != frames.size:
        sizes = "x".join(map(str, actual)), "x".join(map(str, frames.size))
        raise UsageError(
            f"frame {frames.names[position]} is {sizes[0]}, the first frame is {sizes[1]};"
            " extract the frames again in one size"
        )
