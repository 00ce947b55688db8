"""Means, and how many rows disagree with what was recorded and why: what is left of a re-scored
file in constant memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from seg_research.evaluation.rescore_rewards import Row
from seg_research.recipes.judge import Note


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    def __str__(self) -> str:
        return f"{self.total / self.count:.4f}" if self.count else "-"


@dataclass(slots=True)
class RescoreSummary:
    """Counts rows as they come.

    Attributes:
        num_rows: all of them, `num_broken` of which could not be read.
        num_disagreeing: rows with at least one recorded number that is another one now.
    """

    num_rows: int = 0
    num_broken: int = 0
    num_disagreeing: int = 0
    _found: defaultdict[str, _Mean] = field(default_factory=lambda: defaultdict(_Mean))
    _recorded: defaultdict[str, _Mean] = field(default_factory=lambda: defaultdict(_Mean))
    _reasons: defaultdict[str, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter[str])
    )
    _notes: Counter[Note] = field(default_factory=Counter[Note])

    def add(self, row: Row) -> None:
        """Count a row."""
        self.num_rows += 1
        judgement = row.judgement
        if judgement is None:
            self.num_broken += 1
            return
        self.num_disagreeing += bool(judgement.disagreements)
        if judgement.note is not None:
            self._notes[judgement.note] += 1
        _add_all(self._found, judgement.values)
        _add_all(self._recorded, row.recorded)
        for changed in judgement.disagreements:
            self._reasons[changed.name][changed.reason] += 1

    def to_markdown(self) -> str:
        """Return the table of means, the notes, and the reasons of disagreements by name."""
        lines = [
            "",
            "| term | mean | rows | recorded mean | rows that differ |",
            "|---|---|---|---|---|",
        ]
        for name, mean in self._found.items():
            differing = self._reasons[name].total()
            cells = (name, mean, mean.count, self._recorded[name], differing)
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines += ["", *self._note_lines()]
        lines.append(
            f"disagreements with recorded numbers: {self.num_disagreeing} of {self.num_rows} rows"
        )
        for name in self._found:
            lines += [
                f"  {count:5d}  {name}: {reason}"
                for reason, count in self._reasons[name].most_common()
            ]
        return "\n".join(lines) + "\n"

    def _note_lines(self) -> list[str]:
        by_topic: dict[str, list[str]] = {}
        for note, count in self._notes.most_common():
            by_topic.setdefault(note.topic, []).append(f"{count} {note.text}")
        return [f"{topic}: {', '.join(texts)}" for topic, texts in by_topic.items()]


def _add_all(means: defaultdict[str, _Mean], values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        means[name].add(value)
