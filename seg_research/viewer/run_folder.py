"""What a report is made of: `summary.json`, `curve.jsonl`, predictions and ground truth. What
cannot be read becomes a note on the page.

    summary.json   {"title", "command", "seed", "notes": [text], "rows": [{"name", "reward",
    "searches", "valid", "J", "F", "JF", …}],
                    "predictions": [{"name", "path", "masks": folder | null}], "truth": {"parquet":
                    path, "meta": path}, "images": path of image_corpus.jsonl}
    curve.jsonl    {"step", "reward", "terms": {name: value}, "searches", "valid"} a line a step

Paths are absolute or relative to the run folder. J, F and J&F are per cent, `valid` is a fraction.
Masks are `<masks>/<id>/<frame>.png`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from seg_common.errors import UsageError
from seg_common.files import read_jsonl
from seg_research.data.rows import read_rows
from seg_research.records.reader import read_predictions
from seg_research.records.schema import PredictionRow


class _PredictionEntry(BaseModel):
    name: str
    path: str
    masks: str | None = None


class _TruthEntry(BaseModel):
    parquet: str | None = None
    meta: str | None = None


class _Summary(BaseModel):
    model_config = ConfigDict(extra="ignore")

    title: str = "Run report"
    command: str = ""
    seed: int | None = None
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    predictions: list[_PredictionEntry] = []
    truth: _TruthEntry = _TruthEntry()
    images: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """Rollout 0 of every question, by one policy.

    Attributes:
        by_id: predictions by question id, in file order.
        masks_dir: None where nothing was segmented.
    """

    name: str
    by_id: Mapping[str, PredictionRow]
    masks_dir: Path | None


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a page shows.

    Attributes:
        rows: one a policy, values by column name.
        curve: lines of the training log.
        ground_truths: JSON text, by question id.
        steps: the searches that a human would make, by question id.
        truth_masks: folder of ground-truth masks by question id.
        found_images: file of an image that a search can find, by the source the search server
            names it by: `<corpus file>#<id>`.
        notes: said by the run, `missing`: found wanting while reading.
    """

    title: str
    command: str = ""
    seed: int | None = None
    notes: tuple[str, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    curve: tuple[Mapping[str, Any], ...] = ()
    predictions: tuple[PredictionSet, ...] = ()
    ground_truths: Mapping[str, str] = field(default_factory=dict[str, str])
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    truth_masks: Mapping[str, Path] = field(default_factory=dict[str, Path])
    found_images: Mapping[str, Path] = field(default_factory=dict[str, Path])
    missing: tuple[str, ...] = ()


def read_run(run_dir: Path) -> Run:
    """Read a run folder.

    Raises:
        UsageError: there is no such folder, or nothing in it that a report could show.
    """
    if not run_dir.is_dir():
        raise UsageError(f"{run_dir}: no such run folder")
    missing: list[str] = []
    summary = _read_summary(run_dir, missing)
    entries = summary.predictions or list(_find_predictions(run_dir))
    sets = [found for entry in entries if (found := _read_set(run_dir, entry, missing))]
    curve = _read_curve(run_dir / "curve.jsonl", missing)
    if not (summary.rows or sets or curve):
        raise UsageError(
            f"{run_dir}: nothing to report; expected summary.json, curve.jsonl or "
            "predictions.jsonl in it"
        )
    gts, steps = _read_truth(run_dir, summary.truth.parquet, missing)
    return Run(
        title=summary.title,
        command=summary.command,
        seed=summary.seed,
        notes=tuple(summary.notes),
        rows=tuple(summary.rows),
        curve=curve,
        predictions=tuple(sets),
        ground_truths=gts,
        steps=steps,
        truth_masks=_read_meta(run_dir, summary.truth.meta, missing),
        found_images=_read_image_corpus(run_dir, summary.images, missing),
        missing=tuple(missing),
    )


def _read_summary(run_dir: Path, missing: list[str]) -> _Summary:
    path = run_dir / "summary.json"
    try:
        return _Summary.model_validate_json(path.read_bytes())
    except OSError:
        missing.append(f"{path}: not there, so there is no table of results")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        missing.append(f"{path}: {place}: {first['msg']}; the table of results is left out")
    return _Summary()


def _find_predictions(run_dir: Path) -> Iterator[_PredictionEntry]:
    # The trainer leaves the last one where a guard stopped it.
    names = ("predictions.jsonl", "*/predictions.jsonl", "worst_trajectories.jsonl")
    for path in sorted(chain.from_iterable(map(run_dir.glob, names))):
        masks = path.parent / "seg"
        yield _PredictionEntry(
            name=path.parent.name or "predictions",
            path=str(path.resolve()),
            masks=str(masks.resolve()) if masks.is_dir() else None,
        )


def _read_set(run_dir: Path, entry: _PredictionEntry, missing: list[str]) -> PredictionSet | None:
    by_id: dict[str, PredictionRow] = {}
    try:
        for prediction in read_predictions(run_dir / entry.path):
            by_id.setdefault(prediction.sample_id, prediction)
    except (UsageError, ValueError) as error:  # ValueError: a path that cannot be one, such as "\0"
        missing.append(f"predictions “{entry.name}”: {error}")
    masks_dir = run_dir / entry.masks if entry.masks else None
    if masks_dir is not None and not _is_dir(masks_dir):
        missing.append(f"masks of “{entry.name}”: no folder {masks_dir}")
        masks_dir = None
    return PredictionSet(entry.name, by_id, masks_dir) if by_id else None


def _read_curve(path: Path, missing: list[str]) -> tuple[Mapping[str, Any], ...]:
    lines: list[Mapping[str, Any]] = []
    try:
        lines.extend(read_jsonl(path))
    except UsageError as error:
        missing.append(f"learning curve: {error}")
    return tuple(lines)


def _read_truth(
    run_dir: Path, name: str | None, missing: list[str]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the ground truth (JSON text) and the expected searches of each question."""
    if name is None:
        return {}, {}
    gts: dict[str, str] = {}
    steps: dict[str, tuple[str, ...]] = {}
    try:
        for row in read_rows(run_dir / name):
            sample_id, truth = str(row["id"]), row["reward_model"]
            gts[sample_id] = str(truth["ground_truth"])
            steps[sample_id] = tuple(map(str, truth.get("steps") or ()))
    except UsageError as error:
        missing.append(f"ground truth {name}: {error}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing.append(f"ground truth {name}: cannot be read ({error!r})")
    return gts, steps


def _read_meta(run_dir: Path, name: str | None, missing: list[str]) -> dict[str, Path]:
    if name is None:
        return {}
    try:
        entries = json.loads((run_dir / name).read_bytes())
        return {str(sample_id): run_dir / str(mask_dir) for sample_id, mask_dir, *_ in entries}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        missing.append(f"ground-truth masks {name}: cannot be read ({error})")
        return {}


def _read_image_corpus(run_dir: Path, name: str | None, missing: list[str]) -> dict[str, Path]:
    """Return the file of every image of a corpus; those outside the corpus' own folder are left
    out.
    """
    if name is None:
        return {}
    corpus = run_dir / name
    files: dict[str, Path] = {}
    try:
        folder = corpus.parent.resolve()
        for entry in read_jsonl(corpus):
            file = (
                folder / str(entry.get("image_path") or f"images/{entry.get('filename')}")
            ).resolve()
            if file.is_relative_to(folder):
                files[f"{corpus.name}#{entry.get('id')}"] = file
    except (UsageError, OSError, ValueError) as error:
        missing.append(f"images that searches found: {error}")
    return files


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
