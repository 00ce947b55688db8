"""One question about one video, with what is known of the right answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import ImageSize, Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame offered to the policy: the id it is called by, the file, and the size at which the
    opening prompt shows it.
    """

    frame_id: FrameId
    path: Path
    shown_size: ImageSize


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """The target on one offered frame.

    Attributes:
        box: tight box of the mask.
        point: deepest inside point (arg-max of the distance transform).
        area: mask pixels, divided by the maximum over the offered frames; in (0, 1].
        max_conn_area: pixels of the largest 8-connected component, divided likewise.
        mask: the target itself; None where only box and point are known (recorded rollouts, data
            prepared by others).
    """

    box: Norm1000Box
    point: Norm1000Point
    area: float
    max_conn_area: float
    mask: CoarseMask | None = None


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What is known of the right answer.

    Attributes:
        frames: the target on every offered frame that shows it.
        steps: human-written expected search steps, what the question needs; empty where the data
            set has none.
        absent: the video does not show the target at all, and saying so is the right answer.
            Without it an empty `frames` says only that the offered frames do not show it.
    """

    frames: Mapping[FrameId, FrameTruth]
    steps: tuple[str, ...] = ()
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """A prepared question.

    Attributes:
        frames: offered to the policy, in temporal order.
        truth: None where the answer is unknown (a user's own question).
    """

    sample_id: str
    question: str
    video_path: Path
    frames: tuple[Frame, ...]
    ability: str = "one-hop"
    data_source: str = ""
    truth: GroundTruth | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Expected search steps; empty where none are known."""
        return () if self.truth is None else self.truth.steps
