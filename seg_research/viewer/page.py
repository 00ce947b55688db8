"""Write the report: one HTML file with everything inside, that asks nothing of the network and
opens from a disk.

Three locks keep foreign text from becoming markup: the template engine escapes every value, a
finaliser first makes control characters visible, and a content security policy lets the browser run
this page's own script (by hash) and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from seg_common.files import write_atomic
from seg_research import __version__
from seg_research.viewer.curve import draw, format_value, read_series
from seg_research.viewer.questions import QuestionView, choose_questions, view_question
from seg_research.viewer.run_folder import Run, read_run
from seg_research.viewer.text import legible, shorten

NUM_QUESTIONS = 12
IMAGE_BUDGET_BYTES = 5_000_000
"""Base64 text; with markup the page stays below 6 MB."""
MAX_ROWS, MAX_COLUMNS, MAX_NOTES, NOTE_CHARS = 20, 12, 30, 400

COLUMNS = {
    "reward": "reward",
    "searches": "searches / episode",
    "valid": "well-formed",
    "J": "J",
    "F": "F",
    "JF": "J&F",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of the table; `percent` is its share of the column's largest, None where there is no
    value.
    """

    text: str
    percent: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The table of results: column labels, then one name and cells a row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def write_report(run_dir: Path, out: Path) -> None:
    """Read a run folder and write its page, atomically.

    Raises:
        UsageError: there is no such folder, nothing in it to report, or the page cannot be written.
    """
    write_atomic(out, render(read_run(run_dir)))


def render(run: Run) -> str:
    """Return the page of a run."""
    main, terms = read_series(run.curve)
    questions, missing = _questions(run)
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    template = _environment().from_string(_asset("report.html"))
    return template.render(
        title=shorten(run.title, 160),
        command=shorten(run.command, 500),
        seed=run.seed,
        version=__version__,
        # Package data, not input: the only two values that are not escaped.
        style=Markup(style),
        script=Markup(script),
        script_hash=digest,
        table=build_table(run.rows),
        charts=[draw(series) for series in main],
        term_charts=[draw(series) for series in terms],
        questions=questions,
        opened=next((i for i, question in enumerate(questions) if question.searched), 0),
        num_all=len(set(chain.from_iterable(found.by_id for found in run.predictions))),
        abilities=list(
            dict.fromkeys(question.ability for question in questions if question.ability)
        ),
        notes=[shorten(note, NOTE_CHARS) for note in run.notes[:MAX_NOTES]],
        missing=[shorten(note, NOTE_CHARS) for note in (*run.missing, *missing)[:MAX_NOTES]],
    )


def build_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Lay the table out: known columns first, then whatever other numbers the run gave; columns
    without a value are left out.
    """
    rows = rows[:MAX_ROWS]
    if not rows:
        return None
    # A dict, as it keeps the order of the columns.
    columns = dict.fromkeys((*COLUMNS, *chain.from_iterable(rows)))
    filled = [key for key in columns if any(_is_number(row.get(key)) for row in rows)]
    keys = filled[:MAX_COLUMNS]
    largest = {
        key: max((abs(row[key]) for row in rows if _is_number(row.get(key))), default=0) or 1
        for key in keys
    }
    body = tuple(
        (
            shorten(str(row.get("name", "–")), 60),
            tuple(_cell(key, row.get(key), _full_scale(key, largest[key])) for key in keys),
        )
        for row in rows
    )
    return Table(tuple(COLUMNS.get(key, shorten(key, 24)) for key in keys), body)


def _full_scale(key: str, largest: float) -> float:
    scale = {"valid": 1.0, "J": 100.0, "F": 100.0, "JF": 100.0}.get(key, largest)
    return max(scale, largest)


def _cell(key: str, value: Any, full_scale: float) -> Cell:
    if not _is_number(value):
        return Cell("–")
    return Cell(_cell_text(key, value), 100 * max(0.0, value) / full_scale)


def _cell_text(key: str, value: float) -> str:
    if key in {"J", "F", "JF"}:
        return f"{value:.1f}"
    is_count = isinstance(value, int) and key not in COLUMNS
    return str(value) if is_count else format_value(value, percent=key == "valid")


def _is_number(value: Any) -> bool:
    # false for NaN, too
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _questions(run: Run) -> tuple[list[QuestionView], list[str]]:
    """View as many of the chosen questions as the size of the page allows."""
    chosen = choose_questions(run.predictions, NUM_QUESTIONS)
    questions: list[QuestionView] = []
    num_bytes = 0
    for sample_id in chosen:
        question = view_question(sample_id, run)
        num_bytes += question.num_bytes
        if num_bytes > IMAGE_BUDGET_BYTES:
            left_out = f"{len(chosen) - len(questions)} of {len(chosen)} trajectories are left out"
            return questions, [f"{left_out} to keep this page small"]
        questions.append(question)
    if not questions:
        return [], ["no predictions, so there are no trajectories to look at"]
    return questions, []


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["score"] = _score  # pyright: ignore[reportUnknownMemberType]
    return environment


def _score(value: float | None) -> str:
    return "–" if value is None else format_value(value)


def _finalize(value: Any) -> Any:
    return legible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return resources.files("seg_research.viewer").joinpath(name).read_text(encoding="utf-8")
