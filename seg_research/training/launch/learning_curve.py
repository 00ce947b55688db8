"""What the trajectory log of a run says, step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_common.files import read_jsonl
from seg_research.episode.transcript import Outcome, StopReason
from seg_research.records.reader import read_row
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
    rows = [read_row(record) for record in records]
    ran: dict[str, list[float]] = defaultdict(list)
    worked: list[float] = []
    for row in rows:
        for name, value in row.rewards.items():
            # A term that did not run in an episode says nothing there.
            if value is not None:
                ran[name].append(value)
        for turn in row.turns:
            if not turn.by_policy and turn.outcome != Outcome.FAULT:
                worked.append(turn.outcome in (Outcome.OK, Outcome.EMPTY))
    return {
        "step": step,
        "episodes": len(rows),
        "reward": _mean([record["score"] for record in records]),
        "terms": {name: _mean(values) for name, values in ran.items()},
        "searches": _mean([row.num_search for row in rows]),
        "valid": _mean([row.is_well_formed for row in rows]),
        "answered": _mean([row.stop_reason == StopReason.ANSWERED for row in rows]),
        "tool_success": _mean(worked) if worked else 0.0,
        "response_tokens": _mean([record["num_response_tokens"] for record in records]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
