"""Score recorded rollouts anew and compare with what their lines say, row by row in constant
memory.

Where a line does not hold the annotated steps of its question, guidance cannot be computed. Records
of the original give it away all the same: their process score is half of guidance + tapering, and
guidance is 0 or 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, cast

from seg_common.errors import UsageError
from seg_common.files import atomic_path
from seg_research.evaluation import disagreement_reasons as differences
from seg_research.recipes.seg_research.compat.terms import ValidationIoU
from seg_research.recipes.seg_research.compat.text import count_search_tags, decoded_response
from seg_research.recipes.seg_research.final_answer import count_searches, read_verdict
from seg_research.recipes.seg_research.grammar import read_action
from seg_research.recipes.seg_research.reward_settings import Mode
from seg_research.records.reader import read_rollout
from seg_research.records.rollouts import Rollout
from seg_research.rewards.rubric import PaidWhen, Rubric, Score, TermRole

CHUNK_ROWS = 64
"""Rows whose queries are embedded together."""

_EXACT = 1e-6
"""How near to 0 or 1 a recovered guidance must be."""

_BESIDE_TERMS = ("process", "num_search", "score")

Values = Mapping[str, float | None]
"""What one definition gives for one rollout: its terms, `process`, `num_search` and `score`."""


class GuidanceSource(StrEnum):
    """Where the value of the guidance term comes from."""

    STEPS = "steps"
    """Computed from the annotated steps in the line."""
    RECOVERED = "recovered"
    """Recovered from the recorded process score."""


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
        values: empty where the line could not be read.
        recorded: what the line says, by the same names.
        error: why the line could not be read; empty where it could.
    """

    line: int
    values: Values = field(default_factory=dict[str, float | None])
    recorded: Mapping[str, float] = field(default_factory=dict[str, float])
    guidance_source: GuidanceSource | None = None
    disagreements: tuple[Disagreement, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        row: dict[str, Any] = {
            "line": self.line,
            "terms": {
                name: value for name, value in self.values.items() if name not in _BESIDE_TERMS
            },
            **{name: self.values.get(name) for name in _BESIDE_TERMS},
            "guidance_source": self.guidance_source,
        }
        if self.disagreements:
            row["disagreements"] = [
                {"name": d.name, "recorded": d.recorded, "reason": d.reason}
                for d in self.disagreements
            ]
        if self.error:
            row["error"] = self.error
        return row


@dataclass(frozen=True, slots=True)
class Rescorer:
    """Scores lines by one definition and explains by the other where they differ.

    Attributes:
        mode: the definition that counts.
        rubrics: one for each mode.
    """

    mode: Mode
    rubrics: Mapping[Mode, Rubric]

    def rows(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
        """Score numbered lines; a broken one gives a row with its `error`."""
        numbered = iter(lines)
        while chunk := list(islice(numbered, CHUNK_ROWS)):
            yield from self._chunk([(number, _read(line)) for number, line in chunk])

    def _chunk(self, rollouts: list[tuple[int, Rollout | str]]) -> Iterator[Row]:
        episodes = [
            (rollout.transcript, rollout.truth)
            for _, rollout in rollouts
            if not isinstance(rollout, str)
        ]
        scores = zip(*(self.rubrics[mode].score_many(episodes) for mode in Mode), strict=True)
        for number, rollout in rollouts:
            if isinstance(rollout, str):
                yield Row(number, error=rollout)
            else:
                yield self._row(number, rollout, dict(zip(Mode, next(scores), strict=True)))

    def _row(self, line: int, rollout: Rollout, scores: Mapping[Mode, Score]) -> Row:
        guidance = source = None
        if rollout.truth is not None and rollout.truth.steps:
            source = GuidanceSource.STEPS
        elif not rollout.knows_steps:
            guidance = _recovered_guidance(rollout.recorded, scores[Mode.COMPAT])
            source = None if guidance is None else GuidanceSource.RECOVERED
        values = {
            mode: _values(mode, self.rubrics[mode], rollout, scores[mode], guidance)
            for mode in Mode
        }
        disagreements = tuple(_disagreements(self.mode, rollout, values))
        return Row(line, values[self.mode], rollout.recorded, source, disagreements)


def rescore(
    source: Path, rescorer: Rescorer, out: Path | None, progress: Callable[[int], object]
) -> Iterator[Row]:
    """Score a file line by line; `out` appears when the last row was taken. `progress` is told how
    many bytes were read.

    Raises:
        UsageError: the file is missing or `out` cannot be written.
    """
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


def _read(line: bytes) -> Rollout | str:
    """Read a line; where it is broken, tell why."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    if not isinstance(value, dict):
        return f"expected a JSON object, found {type(value).__name__}"
    try:
        return read_rollout(cast("dict[str, Any]", value), read_action)
    except UsageError as error:
        return str(error)


def _recovered_guidance(recorded: Mapping[str, float], original: Score) -> float | None:
    """Solve the recorded process score for guidance; None where it is the format term of a question
    without steps.
    """
    process, tapering = recorded.get("process"), original.terms.get("tapering")
    if process is None or tapering is None:
        return None
    guidance = 2 * process - tapering
    return next((bit for bit in (0.0, 1.0) if abs(guidance - bit) < _EXACT), None)


def _values(
    mode: Mode, rubric: Rubric, rollout: Rollout, score: Score, guidance: float | None
) -> Values:
    """Lay out what a rubric says; a `guidance` that is known without its steps joins the process
    part.
    """
    compat = mode is Mode.COMPAT
    num_search = (
        count_search_tags(decoded_response(rollout.transcript))
        if compat
        else count_searches(rollout.transcript)
    )
    terms = dict(score.terms)
    if score.total is None or rollout.truth is None:
        return {**terms, "process": None, "num_search": num_search, "score": None}
    if "acc" in rollout.recorded:
        terms["acc"] = ValidationIoU()(rollout.transcript, rollout.truth)
    process = 0.0
    for entry in rubric.terms:
        name, is_paid = entry.name, entry.when.applies_to(rollout.truth)
        if guidance is not None:
            is_paid = entry.when is not PaidWhen.WITHOUT_STEPS
            if name == "guidance":
                unpaid = entry.only_answered and read_verdict(rollout.transcript).answer is None
                terms[name] = 0.0 if unpaid else guidance
        value = terms[name]
        if entry.role is TermRole.PROCESS and is_paid and value is not None:
            process += entry.weight * value
    return {
        **terms,
        "process": process,
        "num_search": num_search,
        "score": (score.outcome or 0.0) + process,
    }


def _disagreements(
    mode: Mode, rollout: Rollout, values: Mapping[Mode, Values]
) -> Iterator[Disagreement]:
    found, other = values[mode], values[Mode.ROBUST if mode is Mode.COMPAT else Mode.COMPAT]
    if found["score"] is None or rollout.truth is None:
        return
    changed: list[str] = []
    for name, recorded in sorted(rollout.recorded.items(), key=lambda item: item[0] == "score"):
        if name not in found or not differences.differ(recorded, found[name]):
            continue
        if name == "score":
            reason = differences.reason_of_score(changed, rollout.recorded)
        elif differences.differ(recorded, other.get(name)):
            reason = differences.EDITED if rollout.is_foreign else differences.OTHER_SETTINGS
        else:
            definitions = values[Mode.ROBUST], values[Mode.COMPAT]
            reason = differences.reason_between(
                name, rollout.transcript, rollout.truth, *definitions
            )
        if name != "num_search":
            changed.append(name)
        yield Disagreement(name, recorded, found[name], reason)
