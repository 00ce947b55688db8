"""Score recorded rollouts again and compare with what their lines say, row by row in constant
memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

from seg_common.errors import UsageError
from seg_common.files import atomic_path
from seg_research.recipes.judge import SCORE, Disagreement, Judge, Judgement
from seg_research.records.rollouts import Rollout

CHUNK_ROWS = 64
"""Rows whose texts are embedded together."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line, scored.

    Attributes:
        line: its number in the file, from 1.
        judgement: None where the line could not be read.
        recorded: what the line says, by the same names.
        error: why the line could not be read; empty where it could.
    """

    line: int
    judgement: Judgement | None = None
    recorded: Mapping[str, float] = field(default_factory=dict[str, float])
    error: str = ""

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """Recorded numbers that are others now."""
        return () if self.judgement is None else self.judgement.disagreements

    def to_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        if self.judgement is None:
            return {"line": self.line, "terms": {}, SCORE: None, "error": self.error}
        row: dict[str, Any] = {
            "line": self.line,
            "terms": self.judgement.terms,
            **self.judgement.beside,
            **self.judgement.fields,
        }
        if self.disagreements:
            row["disagreements"] = [
                {"name": d.name, "recorded": d.recorded, "reason": d.reason}
                for d in self.disagreements
            ]
        return row


def rescore(
    source: Path, judge: Judge, out: Path | None, progress: Callable[[int], object]
) -> Iterator[Row]:
    """Score a file line by line; `out` appears when the last row was taken. `progress` is called
    with the bytes that were read, of twice the file's, which the judge surveys first.

    Raises:
        UsageError: the file is missing or `out` cannot be written.
    """
    for _, line in _numbered_lines(source, progress):
        found = _read(judge, line)
        if not isinstance(found, str):
            judge.survey(found)
    rows = judged(judge, _numbered_lines(source, progress))
    if out is None:
        yield from rows
        return
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write('{"rows": [')
        for index, row in enumerate(rows):
            handle.write((",\n" if index else "\n") + json.dumps(row.to_json()))
            yield row
        handle.write("\n]}\n")


def judged(judge: Judge, lines: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
    """Score numbered lines; a broken one gives a row with its `error`."""
    numbered = iter(lines)
    while chunk := list(islice(numbered, CHUNK_ROWS)):
        read = [(number, _read(judge, line)) for number, line in chunk]
        rollouts = [found for _, found in read if not isinstance(found, str)]
        judgements = iter(judge.judge(rollouts))
        for number, found in read:
            if isinstance(found, str):
                yield Row(number, error=found)
            else:
                yield Row(number, next(judgements), found.recorded)


def _numbered_lines(path: Path, progress: Callable[[int], object]) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            progress(len(line))
            if line.strip():
                yield number, line


def _read(judge: Judge, line: bytes) -> Rollout | str:
    """Read a line; where it is broken, tell why."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    if not isinstance(value, dict):
        return f"expected a JSON object, found {type(value).__name__}"
    try:
        return judge.read(cast("dict[str, Any]", value))
    except UsageError as error:
        return str(error)
