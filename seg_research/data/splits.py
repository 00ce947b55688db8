"""The parts of a benchmark."""

from __future__ import annotations

from enum import StrEnum


class Split(StrEnum):
    """Part of a benchmark; the value is its name in folders and files."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


SPLITS = tuple(Split)
