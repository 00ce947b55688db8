"""A benchmark reader: how one benchmark lies on disk. This module imports nothing heavy, so that
readers can be listed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seg_research.data.splits import SPLITS, Split

if TYPE_CHECKING:
    from seg_research.data.question import BenchmarkQuestion


def _write_nothing(root: Path, split: Split, questions: Sequence[BenchmarkQuestion]) -> None:
    """Stand in for a benchmark whose evaluation needs no file of ours."""


@dataclass(frozen=True, slots=True)
class BenchmarkReader:
    """How one benchmark lies on disk.

    Attributes:
        name: on the command line; part of the seed of every draw, so it must not change.
        root: folder of the benchmark, if the user names none.
        read: lists the questions of a split in a folder; opens no frame and no mask.
        write_truth: writes, beside the prepared rows, what the benchmark's evaluation protocol
            reads; called with the questions that were prepared.
    """

    name: str
    root: Path
    read: Callable[[Path, Split], Sequence[BenchmarkQuestion]]
    write_truth: Callable[[Path, Split, Sequence[BenchmarkQuestion]], None] = _write_nothing
    splits: tuple[Split, ...] = SPLITS
