"""Prepare a split of OK-VOS, or of another benchmark laid out like it.

`ROOT/<split>.parquet` has a row for every question, `ROOT/<split>/JPEGImages/<video>` the frames,
`ROOT/<split>/Annotations/<video>/<oid>` a PNG of the target for every frame that is judged
(data/README.md). Prepared rows go to `ROOT/<split>_<frames>_<long side>_<short side>.parquet`, the
list of mask folders that `seg-research evaluate` reads to `ROOT/<split>_meta_mapping.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.data.parquet import read_parquet
from seg_research.data.question import (
    BenchmarkQuestion,
    PngMasks,
    QuestionTarget,
    is_folder_name,
)
from seg_research.data.reader import BenchmarkReader
from seg_research.data.splits import Split


class _RawRow(BaseModel):
    """One question as the benchmark ships it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    id: str
    question: str
    video: str
    oid: str
    images: list[str]
    ability: str
    steps: list[str] | None = None
    absent: bool | None = None

    @field_validator("id", "video", "oid")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        # These become folder names, here and where masks are written.
        if not is_folder_name(name):
            raise ValueError(f"{name!r} cannot be used as a folder name")
        return name


def read_okvos(root: Path, split: Split) -> list[BenchmarkQuestion]:
    """List the questions of a split.

    Raises:
        UsageError: the table is missing or malformed; names file, row and column.
    """
    path = root / f"{split}.parquet"
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; --root must be a folder in the layout of data/README.md"
        )
    questions: list[BenchmarkQuestion] = []
    for index, raw in enumerate(read_parquet(path).rows):
        fields = {**raw, "id": index if raw.get("id") is None else raw["id"]}
        try:
            row = _RawRow.model_validate(fields)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise UsageError(f"{path} row {index}: column {place}: {fault['msg']}") from None
        questions.append(_question(root, split, index, row))
    return questions


def _question(root: Path, split: Split, index: int, row: _RawRow) -> BenchmarkQuestion:
    masks = root / split / "Annotations" / row.video / row.oid
    return BenchmarkQuestion(
        question_id=row.id,
        question=row.question,
        index=index,
        where=f"{root / f'{split}.parquet'} row {index} (id {row.id})",
        video=root / split / "JPEGImages" / row.video,
        stems=tuple(row.images),
        # Nobody has to draw masks of what is not there; where there are some, they must be empty.
        targets=(QuestionTarget(row.oid, PngMasks(masks, required=not row.absent)),),
        ability=row.ability,
        data_source=f"Search_RVOS_{row.ability}",
        steps=tuple(row.steps or ()),
        absent=bool(row.absent),
    )


def write_meta_mapping(root: Path, split: Split, questions: Sequence[BenchmarkQuestion]) -> None:
    """Write which mask folder belongs to which question, as `evaluation/protocols/jf.py` reads it;
    for test also under the original's name.
    """
    mapping: list[list[str]] = []
    for question in questions:
        for target in question.targets:
            assert isinstance(target.masks, PngMasks)
            mapping.append([question.question_id, str(target.masks.folder), question.ability])
    content = json.dumps(mapping, ensure_ascii=False, indent=1) + "\n"
    write_atomic(root / f"{split}_meta_mapping.json", content)
    if split is Split.TEST:
        write_atomic(root / "meta_mapping.json", content)


SPEC = BenchmarkReader("okvos", Path("data/OK_VOS"), read_okvos, write_meta_mapping)
