"""Make the tables, figures and page of the mini experiments from their raw logs.

python examples/train/mini/results.py outputs/mini_experiments     raw logs -> CSVs -> figures and
docs/results/mini.md python examples/train/mini/results.py --page-only                  the same
from the committed CSVs
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seg_common.errors import UsageError
from seg_common.files import read_jsonl, write_atomic
from seg_research.mini.questions import Ability
from seg_research.training.launch.learning_curve import read_trajectories

sys.path.insert(0, str(Path(__file__).parent))
from results_page import write_page

ROOT = Path(__file__).parents[3]
PAGE_DIR = ROOT / "docs" / "results"
OUTCOME_TERMS = ("box_iou", "box_l1", "point", "keyframe")
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Collect, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "raw", type=Path, nargs="?", metavar="FOLDER", help="what experiments.py wrote"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=PAGE_DIR,
        metavar="FOLDER",
        help="CSVs, figures and mini.md (default: docs/results)",
    )
    parser.add_argument(
        "--page-only", action="store_true", help="make the page from the CSVs in --out"
    )
    options = parser.parse_args(argv)
    if (options.raw is None) != options.page_only:
        parser.error("name the folder of raw logs, or give --page-only")
    try:
        if options.raw is not None:
            collect(options.raw, options.out)
        write_page(options.out)
    except (UsageError, OSError) as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 1
    print(f"written: {options.out / 'mini.md'}")
    return 0


def collect(raw: Path, out: Path) -> None:
    """Turn raw logs into `training.csv` (a line a step), `questions.csv` (a line a judged question)
    and `manifest.json`.

    Only finished runs count; the manifest names those that are not.

    Raises:
        UsageError: there is no finished run.
    """
    runs = sorted(path.parent for path in raw.glob("runs/*/seed*/train"))
    finished = [run for run in runs if (run / "finished.json").is_file()]
    if not finished:
        raise UsageError(
            f"{raw}: no finished run; run experiments.py first (it goes on where it stopped)"
        )
    questions: list[Row] = []
    for folder in sorted((raw / "cold_start").glob("seed*")):
        questions += judged_rows("cold_start", int(folder.name.removeprefix("seed")), 0, folder)
    training: list[Row] = []
    for run in finished:
        name, seed = run.parent.name, int(run.name.removeprefix("seed"))
        training += training_rows(name, seed, run / "train")
        for folder in run.glob("step*"):
            questions += judged_rows(name, seed, int(folder.name.removeprefix("step")), folder)
    key, also = ("experiment", "seed", "step"), ("decoding", "id")
    write_atomic(
        out / "training.csv", to_csv(sorted(training, key=lambda row: [row[k] for k in key]))
    )
    write_atomic(
        out / "questions.csv",
        to_csv(sorted(questions, key=lambda row: [row[k] for k in (*key, *also)])),
    )
    manifest = json.loads((raw / "manifest.json").read_text(encoding="utf-8"))
    manifest["examination"] = examination(
        ROOT / manifest["plan"]["model"], manifest["model_sha256"]
    )
    manifest["runs"] = {f"{run.parent.name}/{run.name}": origin(run) for run in finished}
    manifest["unfinished"] = [
        f"{run.parent.name}/{run.name}" for run in runs if run not in finished
    ]
    write_atomic(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def origin(run: Path) -> Row:
    """Return the commits that trained and judged a run, the files that differed from them, and the
    minutes that it took.
    """
    stages = {
        verb: json.loads((run / f"{verb}.json").read_text(encoding="utf-8"))
        for verb in ("trained", "finished")
    }
    names = {"trained": "training", "finished": "judging"}
    return {
        names[verb]: {key: stage[key] for key in ("commit", "changed_files", "minutes")}
        for verb, stage in stages.items()
    }


def examination(model: Path, sha256: str) -> Row | None:
    """Return what the cold start's examination found; None if it was never examined, or other
    weights lie there now.
    """
    weights, checks = model / "model.safetensors", model / "acceptance_checks.json"
    if not checks.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != sha256:
        return None
    return json.loads(checks.read_text(encoding="utf-8"))


def training_rows(name: str, seed: int, run_dir: Path) -> list[Row]:
    """Summarise the training rollouts of each step: outcome (the sum of its four terms, 0 to 4),
    validity and searches by ability.
    """
    rows: list[Row] = []
    for step, records in read_trajectories(run_dir).items():
        row: Row = {"experiment": name, "seed": seed, "step": step, "episodes": len(records)}
        row["reward"] = mean([record["score"] for record in records])
        row["outcome"] = mean([outcome(record) for record in records])
        row["valid"] = mean([float(record["rewards"]["format"] == 1.0) for record in records])
        row["answered"] = mean([float(record["stop_reason"] == "answered") for record in records])
        row["tokens"] = mean([record["num_response_tokens"] for record in records])
        row["searches"] = mean([record["num_search"] for record in records])
        for ability in Ability:
            own = [record["num_search"] for record in records if record["ability"] == ability]
            row[f"searches {ability}"] = mean(own) if own else None
        rows.append(row)
    return rows


def judged_rows(name: str, seed: int, step: int, folder: Path) -> list[Row]:
    """Describe each question of one judged checkpoint, greedy (where that was done) and sampled; J
    and F are per cent.

    Raises:
        UsageError: sampled episodes were not judged to the end.
    """
    rows: list[Row] = []
    if not (folder / "sampled" / "result.json").is_file():
        raise UsageError(
            f"{folder}: not judged to the end; run experiments.py again, it goes on where it "
            "stopped"
        )
    for result in sorted(folder.glob("*/result.json")):
        decoding = result.parent.name
        samples = json.loads(result.read_text(encoding="utf-8"))["samples"]
        for record in read_jsonl(result.with_name("predictions.jsonl")):
            region, boundary, ability = samples[record["id"]]
            row: Row = {
                "experiment": name,
                "seed": seed,
                "step": step,
                "decoding": decoding,
                "id": record["id"],
                "ability": ability,
            }
            row |= {
                "J": 100 * region,
                "F": 100 * boundary,
                "JF": 50 * (region + boundary),
                "searches": record["num_search"],
            }
            row |= {"valid": float(record["rewards"]["format"] == 1.0), "outcome": outcome(record)}
            rows.append(row)
    return rows


def outcome(record: Row) -> float:
    """Return the sum of the four outcome terms; one that did not run earned nothing."""
    return sum(record["rewards"].get(term) or 0.0 for term in OUTCOME_TERMS)


def mean(values: Iterable[float]) -> float:
    """Return the mean of at least one value."""
    listed = list(values)
    return sum(listed) / len(listed)


def to_csv(rows: Sequence[Row]) -> str:
    """Write rows with the columns of the first; numbers with six digits, so that files compare."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: f"{value:.6g}" if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
