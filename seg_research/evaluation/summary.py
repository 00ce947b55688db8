"""A run in a few numbers: one row a policy for tables and reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seg_research.records.reader import read_predictions


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy on one benchmark.

    Attributes:
        reward: mean total over questions with a score.
        searches: mean searches an episode.
        valid: share of episodes without a malformed turn that end with a complete prediction.
        J, F, JF: per cent, as `seg-research evaluate` computes them.
        missing: questions without an answer.
    """

    name: str
    reward: float
    searches: float
    valid: float
    J: float
    F: float
    JF: float
    missing: int

    def to_json(self) -> dict[str, Any]:
        """Return the row as the report reads it."""
        return asdict(self)


def policy_row(name: str, predictions: Path, result: Path) -> PolicyRow:
    """Summarise predictions and the scores of their masks.

    Args:
        name: of the policy, for the table.
        predictions: a `predictions.jsonl` of ours.
        result: the JSON that `seg-research evaluate` wrote.
    """
    rows = list(read_predictions(predictions))
    scored = [row for row in rows if row.score is not None]
    overall = json.loads(result.read_text(encoding="utf-8"))["overall"]
    return PolicyRow(
        name,
        reward=_mean([row.score for row in scored if row.score is not None]),
        searches=_mean([row.num_search for row in rows]),
        valid=_mean([float(row.is_well_formed) for row in scored]),
        J=overall["J"],
        F=overall["F"],
        JF=overall["JF"],
        missing=sum(not row.prediction.objects for row in rows),
    )


def start_and_end(curve: Sequence[dict[str, Any]], window: int = 3) -> tuple[float, float]:
    """Mean reward of the first and of the last `window` steps of a learning curve."""
    rewards = [row["reward"] for row in curve]
    return _mean(rewards[:window]), _mean(rewards[-window:])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
