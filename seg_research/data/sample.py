"""One question about one video, with what is known of the right answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from seg_common.errors import UsageError
from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import ImageSize, Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId

ONLY_TARGET_ID = "0"
"""The id of the target where there is one and the data give it none."""


class FrameRole(StrEnum):
    """What a frame of a sample is for; a frame may come several times, in different roles.

    Which roles a policy sees, and how, is the recipe's matter.
    """

    OFFERED = "offered"
    """One of the frames among which the policy chooses."""
    REFERENCE = "reference"
    """Context from the whole video."""
    SEGMENT = "segment"
    """Of the part of the video where the target is to be found."""
    TARGET = "target"
    """The frame on which the targets are to be located."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a sample: the id it is called by, the file, the size at which it is shown, and
    what it is for.
    """

    frame_id: FrameId
    path: Path
    shown_size: ImageSize
    role: FrameRole = FrameRole.OFFERED


@dataclass(frozen=True, slots=True)
class TargetOnFrame:
    """A target on one frame.

    Attributes:
        box: tight box of the mask.
        point: deepest inside point (arg-max of the distance transform).
        area: mask pixels, divided by the target's maximum over the sample's frames; in (0, 1].
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
class Target:
    """One object to segment: its id within the sample, and where it is on every frame of the sample
    that shows it.
    """

    target_id: str
    frames: Mapping[FrameId, TargetOnFrame]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What is known of the right answer.

    Attributes:
        targets: all objects that the question means, by distinct ids.
        steps: human-written expected search steps, what the question needs; empty where the data
            set has none.
        absent: the video does not show a target at all, and saying so is the right answer. Without
            it, targets without frames say only that the sample's frames do not show them.
        difficulty: how hard the question is, in [0, 1]; None where it was not estimated.
    """

    targets: tuple[Target, ...] = ()
    steps: tuple[str, ...] = ()
    absent: bool = False
    difficulty: float | None = None

    @staticmethod
    def of_one(
        frames: Mapping[FrameId, TargetOnFrame],
        steps: tuple[str, ...] = (),
        *,
        absent: bool = False,
    ) -> GroundTruth:
        """Make the truth of a question about one target whose id does not matter."""
        return GroundTruth((Target(ONLY_TARGET_ID, frames),), steps, absent)

    @property
    def is_visible(self) -> bool:
        """Whether any frame of the sample shows a target."""
        return any(target.frames for target in self.targets)

    def single(self) -> Target | None:
        """Return the only target; None if there is none.

        Raises:
            UsageError: there are several, which a recipe for one target cannot judge.
        """
        if len(self.targets) > 1:
            named = ", ".join(target.target_id for target in self.targets)
            raise UsageError(
                f"the ground truth has {len(self.targets)} targets ({named}), but this recipe "
                "handles one; prepare one row for each target, or use another recipe"
            )
        return self.targets[0] if self.targets else None


@dataclass(frozen=True, slots=True)
class Sample:
    """A prepared question.

    Attributes:
        frames: of every role, in temporal order within each.
        ability: the data set's own label of the kind of question; empty where it has none.
        truth: None where the answer is unknown (a user's own question).
    """

    sample_id: str
    question: str
    video_path: Path
    frames: tuple[Frame, ...]
    ability: str = ""
    data_source: str = ""
    truth: GroundTruth | None = None

    @property
    def offered(self) -> tuple[Frame, ...]:
        """The frames among which the policy chooses, in temporal order."""
        return self.with_role(FrameRole.OFFERED)

    def with_role(self, role: FrameRole) -> tuple[Frame, ...]:
        """Return the frames of one role, in temporal order."""
        return tuple(frame for frame in self.frames if frame.role is role)

    @property
    def steps(self) -> tuple[str, ...]:
        """Expected search steps; empty where none are known."""
        return () if self.truth is None else self.truth.steps
