"""What can be chosen when a benchmark is prepared: frames, their size, and for which models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.data.rows import Coordinates
from seg_research.data.splits import Split


class ModelType(StrEnum):
    """Model families; each has its own patch size and its own way of writing coordinates."""

    QWEN3_VL = "Qwen3VL"
    QWEN2_5_VL = "Qwen2.5VL"


_PATCH_FACTOR = {ModelType.QWEN3_VL: 32, ModelType.QWEN2_5_VL: 28}
_COORDINATES = {
    ModelType.QWEN3_VL: Coordinates.NORM1000,
    ModelType.QWEN2_5_VL: Coordinates.RESIZED_PIXELS,
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """How to prepare a split.

    Attributes:
        num_frames: frames offered to the policy, evenly spaced.
        max_size_px, min_size_px: longer and shorter side of a shown frame, rounded up to whole
            patches; equal sides squash to a square.
        patch_factor: pixels a visual token covers along a side; None takes the model family's.
        seed: fixes which frame with a target replaces its nearest neighbour in train samples.
        skip_bad: leave out faulty rows instead of stopping; for train only, as scores over fewer
            questions cannot be compared.
    """

    split: Split
    num_frames: int = 6
    max_size_px: int = 448
    min_size_px: int = 448
    model_type: ModelType = ModelType.QWEN3_VL
    patch_factor: int | None = None
    seed: int = 0
    skip_bad: bool = False

    def __post_init__(self) -> None:
        for name in ("num_frames", "max_size_px", "min_size_px"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.patch_factor is not None and self.patch_factor < 1:
            raise UsageError(f"patch_factor is {self.patch_factor}; expected at least 1")
        if self.min_size_px > self.max_size_px:
            raise UsageError(
                f"min_size {self.min_size_px} is larger than max_size {self.max_size_px}; "
                "exchange them"
            )
        if self.skip_bad and self.split is not Split.TRAIN:
            raise UsageError(
                f"--skip-bad works for train only: leaving out {self.split} rows would change what "
                "the scores mean"
            )

    def rounded_up(self, side_px: int) -> int:
        """Round a side up to whole patches."""
        factor = self.patch_factor or _PATCH_FACTOR[self.model_type]
        return -(-side_px // factor) * factor

    def shown_size(self, size: ImageSize) -> ImageSize:
        """Return the size at which a frame of this size is shown."""
        long_px, short_px = self.rounded_up(self.max_size_px), self.rounded_up(self.min_size_px)
        width, height = size
        return ImageSize(
            long_px if width > height else short_px, long_px if height > width else short_px
        )

    @property
    def coordinates(self) -> Coordinates:
        """What the numbers of the ground truth count."""
        return _COORDINATES[self.model_type]

    @property
    def file_name(self) -> str:
        """Name of the prepared file, e.g. `train_6_448_448.parquet`."""
        sides = [self.rounded_up(side) for side in (self.max_size_px, self.min_size_px)]
        return f"{self.split}_{self.num_frames}_{sides[0]}_{sides[1]}.parquet"
