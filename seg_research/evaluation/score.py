"""Score recorded rollouts again and compare with what their lines say, row by row in constant
memory. How is the recipe's matter (`recipes/record_judge.py`).
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
from seg_research.recipes.record_judge import JudgedRollout, RecordJudge, ValueSource, differ
from seg_research.records.reader import read_rollout
from seg_research.records.rollouts import ReadAction, Rollout

CHUNK_ROWS = 64
"""Rows whose queries are embedded together."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A recorded number that is another one now."""

    name: str
    recorded: float
    found: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line, scored.

    Attributes:
        line: its number in the file, from 1.
        judged: None where the line could not be read.
        recorded: what the line says, by the names of `judged.values`.
        error: why the line could not be read; empty where it could.
    """

    line: int
    judged: JudgedRollout | None = None
    recorded: Mapping[str, float] = field(default_factory=dict[str, float])
    disagreements: tuple[Disagreement, ...] = ()
    error: str = ""

    @property
    def values(self) -> Mapping[str, float | None]:
        """What the line earns now, by name; empty where it could not be read."""
        return {} if self.judged is None else self.judged.values

    @property
    def sources(self) -> Mapping[str, ValueSource]:
        """Where values come from, by term."""
        return {} if self.judged is None else self.judged.sources

    def to_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        row: dict[str, Any] = {"line": self.line}
        if self.judged is None:
            return row | {"terms": {}, "score": None, "error": self.error}
        row |= {"terms": dict(self.judged.terms), **self.judged.sums, **self.judged.counts}
        row["score"] = self.judged.score
        row |= {f"{term}_source": source.name for term, source in self.sources.items()}
        if self.disagreements:
            row["disagreements"] = [
                {"name": d.name, "recorded": d.recorded, "reason": d.reason}
                for d in self.disagreements
            ]
        return row


@dataclass(frozen=True, slots=True)
class Rescorer:
    """Scores the lines of one file.

    Attributes:
        judge: of the recipe.
        read_action: of the recipe's grammar.
    """

    judge: RecordJudge
    read_action: ReadAction

    def survey(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Show the judge every line that can be read."""
        for _, line in lines:
            rollout = self._read(line)
            if not isinstance(rollout, str):
                self.judge.survey(rollout)

    def rows(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
        """Score numbered lines; a broken one gives a row with its `error`."""
        numbered = iter(lines)
        while chunk := list(islice(numbered, CHUNK_ROWS)):
            yield from self._chunk([(number, self._read(line)) for number, line in chunk])

    def _chunk(self, rollouts: list[tuple[int, Rollout | str]]) -> Iterator[Row]:
        readable = [rollout for _, rollout in rollouts if not isinstance(rollout, str)]
        judged = iter(self.judge.judge(readable))
        for number, rollout in rollouts:
            if isinstance(rollout, str):
                yield Row(number, error=rollout)
                continue
            found = next(judged)
            yield Row(number, found, rollout.recorded, tuple(_disagreements(rollout, found)))

    def _read(self, line: bytes) -> Rollout | str:
        """Read a line; where it is broken, tell why."""
        try:
            value: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            return f"not valid JSON ({error})"
        if not isinstance(value, dict):
            return f"expected a JSON object, found {type(value).__name__}"
        try:
            return read_rollout(cast("dict[str, Any]", value), self.read_action)
        except UsageError as error:
            return str(error)


def rescore(
    source: Path, rescorer: Rescorer, out: Path | None, progress: Callable[[int], object]
) -> Iterator[Row]:
    """Score a file line by line; `out` appears when the last row was taken. `progress` is called
    with the bytes that were read, of twice the file's: it is read for the survey, too.

    Raises:
        UsageError: the file is missing or `out` cannot be written.
    """
    rescorer.survey(_numbered_lines(source, progress))
    rows = rescorer.rows(_numbered_lines(source, progress))
    if out is None:
        yield from rows
        return
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write('{"rows": [')
        for index, row in enumerate(rows):
            handle.write((",\n" if index else "\n") + json.dumps(row.to_json()))
            yield row
        handle.write("\n]}\n")


def _numbered_lines(path: Path, progress: Callable[[int], object]) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            progress(len(line))
            if line.strip():
                yield number, line


def _disagreements(rollout: Rollout, judged: JudgedRollout) -> Iterator[Disagreement]:
    """List the recorded numbers that are others now; the score, which follows from them, last."""
    values = judged.values
    if judged.score is None or rollout.truth is None:
        return
    changed: list[str] = []
    for name, recorded in sorted(rollout.recorded.items(), key=lambda item: item[0] == "score"):
        if name not in values or not differ(recorded, values[name]):
            continue
        follows = name == "score" and bool(changed)
        reason = f"follows from {', '.join(changed)}" if follows else judged.explain(name)
        if name not in judged.counts:
            changed.append(name)
        yield Disagreement(name, recorded, values[name], reason)
