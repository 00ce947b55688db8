"""The trajectories that tell most about a run that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seg_common.files import read_jsonl, repair_jsonl, write_atomic
from seg_research.training.run_contract import TRAJECTORIES, VALIDATION_KEY

WORST_FILE = "worst_trajectories.jsonl"


def save_worst(run_dir: Path, count: int = 3) -> Path | None:
    """Write the worst trajectory of each of the `count` worst questions of the last training step;
    None where nothing was logged.

    Episodes that failed come first, then those of least reward, the longest first among equals.
    Call it when no worker writes any more.
    """
    last: list[dict[str, Any]] = []
    for path in sorted((run_dir / TRAJECTORIES).glob("worker-*.jsonl")):
        repair_jsonl(path)
        for record in read_jsonl(path):
            if not record[VALIDATION_KEY] and (
                not last or record["global_step"] >= last[0]["global_step"]
            ):
                last = (
                    [record]
                    if last and record["global_step"] > last[0]["global_step"]
                    else [*last, record]
                )
    worst: dict[str, dict[str, Any]] = {}
    for record in sorted(last, key=_merit):
        worst.setdefault(record["id"], record)
    if not worst:
        return None
    lines = [
        json.dumps(record, ensure_ascii=False) + "\n" for record in list(worst.values())[:count]
    ]
    write_atomic(run_dir / WORST_FILE, "".join(lines))
    return run_dir / WORST_FILE


def _merit(record: dict[str, Any]) -> tuple[bool, float, int]:
    score = record["score"]
    return score is not None, score or 0.0, -record.get("num_response_tokens", 0)
