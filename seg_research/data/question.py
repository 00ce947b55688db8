"""What a benchmark says of one question, before frames are chosen and masks are measured: what
every reader (`data/readers/`) yields and `data/prepare.py` turns into a prepared row.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from seg_common.errors import UsageError
from seg_research.core.masks import Mask, read_mask


class MaskSource(Protocol):
    """The masks of one target. It is sent to other processes, so it can be pickled and opens
    nothing before it is asked; its `repr` says what it reads, so that rows are made again where it
    changed.
    """

    def stems(self) -> Set[str]:
        """Return the stems of the frames that have a mask; other frames do not show the target.

        Raises:
            UsageError: the masks are not there.
        """
        ...

    def read(self, stem: str) -> Mask:
        """Return the mask of a frame, boolean (H, W).

        Raises:
            UsageError: it is not readable.
        """
        ...

    def files(self) -> Sequence[Path]:
        """Return the files that the masks are read from; none where they are not there."""
        ...


@dataclass(frozen=True, slots=True)
class PngMasks:
    """One PNG a frame in a folder, named as the frame; any value but 0 is target.

    Attributes:
        required: complain where there is no such folder, instead of taking it for empty.
    """

    folder: Path
    required: bool = True

    def stems(self) -> Set[str]:
        """Return the stems of the PNGs."""
        if self.required and not self.folder.is_dir():
            raise UsageError(
                f"no mask folder {self.folder}; the row names a wrong video or object, or the "
                "annotations are not unpacked"
            )
        return {path.stem for path in self.files()}

    def read(self, stem: str) -> Mask:
        """Read one PNG."""
        path = self.folder / f"{stem}.png"
        return read_mask(path if path.is_file() else path.with_suffix(".PNG"))

    def files(self) -> list[Path]:
        """Return the PNGs."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.suffix in (".png", ".PNG"))


@dataclass(frozen=True, slots=True)
class QuestionTarget:
    """An object that a question means."""

    target_id: str
    masks: MaskSource


@dataclass(frozen=True, slots=True)
class BenchmarkQuestion:
    """One question as the benchmark ships it.

    Attributes:
        question_id: distinct within a split; names folders of masks (see `is_folder_name`).
        index: of the question in the benchmark's own file.
        where: begins every complaint about it, e.g. `train.parquet row 3 (id q7)`.
        video: folder of its frames.
        stems: names, without suffix, of the frames that belong to the question.
        targets: what is to be segmented; where `absent`, their masks must be empty.
        steps: expected searches, in order; empty where the benchmark has none.
        absent: the video does not show what is asked for.
    """

    question_id: str
    question: str
    index: int
    where: str
    video: Path
    stems: tuple[str, ...]
    targets: tuple[QuestionTarget, ...]
    ability: str = ""
    data_source: str = ""
    steps: tuple[str, ...] = ()
    absent: bool = False
    difficulty: float | None = None


def is_folder_name(name: str) -> bool:
    """Tell whether a name can be that of a folder below another: relative, and never upwards."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts
