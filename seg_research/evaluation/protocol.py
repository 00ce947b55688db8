"""What an evaluation protocol is: how masks become the numbers that a benchmark reports.

This module imports nothing heavy, so that protocols can be listed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from seg_research.metrics import Averaging


def _report_nothing(total: int, faults: Sequence[str]) -> None:
    """Stand in where nobody looks at the progress."""


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """What is to be evaluated.

    Attributes:
        masks_dir: a folder for every sample, as `seg-research segment` writes it.
        truth: file of the benchmark that lists what counts, in the protocol's own form.
        averaging: what weighs the same; None: as the protocol has it.
        inner_frames: leave out the first and last frame of each sample.
        on_sample: called after every sample with the number of samples in all, and what could not
            be judged of this one.
    """

    masks_dir: Path
    truth: Path
    num_workers: int = 1
    averaging: Averaging | None = None
    inner_frames: bool = False
    on_sample: Callable[[int, Sequence[str]], None] = _report_nothing

    @property
    def has_choices(self) -> bool:
        """Whether the user wants something other than what the protocol says."""
        return self.averaging is not None or self.inner_frames


class EvaluationResult(Protocol):
    """What an evaluation found."""

    @property
    def num_broken(self) -> int:
        """Samples with a file that could not be judged."""
        ...

    def to_markdown(self) -> str:
        """Return the table of scores; it ends with a newline."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the result file."""
        ...

    def remarks(self) -> list[str]:
        """Return what has to be said beside the table, a line each."""
        ...


@dataclass(frozen=True, slots=True)
class EvaluationProtocol:
    """One way to judge masks.

    Attributes:
        evaluate: judges; raises UsageError where what it needs is missing or malformed.
        takes_choices: whether `averaging` and `inner_frames` are the user's to choose.
    """

    name: str
    evaluate: Callable[[EvaluationJob], EvaluationResult]
    takes_choices: bool = False
