"""Shown sizes in whole patches, and settings that cannot be."""

import pytest

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.data.preparation import ModelType, Preparation
from seg_research.data.splits import Split


@pytest.mark.parametrize(
    ("size", "preparation", "shown"),
    [
        ((640, 480), Preparation(Split.TEST), (448, 448)),
        ((640, 480), Preparation(Split.TEST, max_size_px=449, min_size_px=300), (480, 320)),
        ((480, 640), Preparation(Split.TEST, max_size_px=448, min_size_px=320), (320, 448)),
        ((500, 500), Preparation(Split.TEST, max_size_px=448, min_size_px=320), (320, 320)),
        (
            (640, 480),
            Preparation(
                Split.TEST, max_size_px=450, min_size_px=450, model_type=ModelType.QWEN2_5_VL
            ),
            (476, 476),
        ),
        (
            (640, 480),
            Preparation(Split.TEST, max_size_px=60, min_size_px=64 - 20, patch_factor=16),
            (64, 48),
        ),
    ],
)
def test_sizes_are_rounded_up_to_whole_patches(size, preparation, shown):
    assert preparation.shown_size(ImageSize(*size)) == ImageSize(*shown)


def test_the_file_name_tells_the_rounded_sizes():
    assert (
        Preparation(
            Split.VAL, num_frames=4, max_size_px=50, min_size_px=33, patch_factor=16
        ).file_name
        == "val_4_64_48.parquet"
    )


def test_test_rows_are_never_left_out():
    with pytest.raises(UsageError, match="train only"):
        Preparation(Split.TEST, skip_bad=True)


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 0},
        {"min_size_px": 0},
        {"patch_factor": 0},
        {"max_size_px": 32, "min_size_px": 64},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(UsageError):
        Preparation(Split.TRAIN, **change)
