"""What the trajectory log of a run says, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seg_common.files import read_jsonl
from seg_research.training.run_contract import TRAJECTORIES, VALIDATION_KEY


def read_trajectories(run_dir: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the scored training episodes of each step, steps ascending; of a step that a resumed
    run repeated, its later attempt.
    """
    by_step: dict[int, dict[tuple[str, int], dict[str, Any]]] = {}
    for path in sorted(
        (run_dir / TRAJECTORIES).glob("worker-*.jsonl"), key=lambda p: p.stat().st_mtime
    ):
        for record in read_jsonl(path):
            if record["score"] is not None and not record[VALIDATION_KEY]:
                by_step.setdefault(record["global_step"], {})[
                    (record["id"], record["sample_idx"])
                ] = record
    return {step: list(records.values()) for step, records in sorted(by_step.items())}


def learning_curve(run_dir: Path) -> list[dict[str, Any]]:
    """Summarise the trajectory log by training step, one row a step: mean reward and terms,
    searches, share of well-formed episodes.
    """
    return [_curve_row(step, records) for step, records in read_trajectories(run_dir).items()]


def _curve_row(step: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    # A term that did not run in an episode, as guidance on a question without annotated steps, says
    # nothing there.
    ran = {
        name: [r["rewards"][name] for r in records if r["rewards"][name] is not None]
        for name in records[0]["rewards"]
    }
    observations = [
        t
        for r in records
        for t in r["turns"]
        if t["role"] != "assistant" and t["outcome"] != "fault"
    ]
    return {
        "step": step,
        "episodes": len(records),
        "reward": mean([r["score"] for r in records]),
        "terms": {name: mean(values) for name, values in ran.items() if values},
        "searches": mean([r["num_search"] for r in records]),
        "valid": mean([float(r["rewards"]["format"] == 1.0) for r in records]),
        "answered": mean([float(r["stop_reason"] == "answered") for r in records]),
        "tool_success": mean([float(t["outcome"] in ("ok", "empty")) for t in observations])
        if observations
        else 0.0,
        "response_tokens": mean([r["num_response_tokens"] for r in records]),
    }
