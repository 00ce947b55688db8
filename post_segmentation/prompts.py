"""From a prediction's words (thousandths of a key frame) to a prompt in pixels, and where its masks
go.

Ids come from files that others wrote: they become folder names only after `mask_folder` has looked
at them.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from post_segmentation.propagator import MaskPrompt
from seg_common.errors import UsageError
from seg_research.core.geometry import box_to_pixels, point_to_pixels
from seg_research.core.video import FrameId, FramePosition, FrameSource, position_of
from seg_research.records.reader import Prediction

MAX_NAME_BYTES = 200


def mask_folder(root: Path, sample_id: str) -> Path:
    """Return the folder of a sample's masks; `/` in an id makes subfolders, as ReasonVOS ids have
    them.

    Raises:
        UsageError: the id is absolute, hidden, climbs out of the folder, or cannot be a file name.
    """
    parts = sample_id.split("/")
    usable = all(
        part and not part.startswith(".") and part.isprintable() and "\\" not in part
        for part in parts
    )
    if not usable or any(
        len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for part in parts
    ):
        raise UsageError(
            f"id {sample_id[:80]!r} cannot name a folder of masks; expected printable names joined by '/', none starting with '.'"
        )
    return root / PurePosixPath(*parts)


def read_prompts(prediction: Prediction, frames: FrameSource) -> tuple[MaskPrompt, ...]:
    """Return one prompt an object, in pixels of the video, on the key frame found by its number.

    Raises:
        UsageError: the video has no frame of that number.
    """
    if prediction.keyframe is None:
        return ()
    position = find_keyframe(prediction.keyframe.frame_id, frames)
    return tuple(
        MaskPrompt(
            position=position,
            box=None if region.box is None else box_to_pixels(region.box, frames.size),
            points=tuple(point_to_pixels(point, frames.size) for point in region.points),
            negative_points=tuple(
                point_to_pixels(point, frames.size) for point in region.negative_points
            ),
        )
        for region in prediction.objects
    )


def find_keyframe(frame_id: FrameId, frames: FrameSource) -> FramePosition:
    """Return the position of a frame by the number in its name, never by counting: real videos
    number with gaps.

    Raises:
        UsageError: the video has no such frame.
    """
    position = position_of(frame_id, frames.names)
    if position is None:
        raise UsageError(
            f"key frame {frame_id} is not in the video; its {len(frames)} frames run from {frames.names[0]} to {frames.names[-1]}"
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
            f"frame {frames.names[position]} is {sizes[0]}, the first frame is {sizes[1]}; extract the frames again in one size"
        )
