"""Complete rows of `predictions.jsonl` that were written in version 1, when this recipe was the
only one: they hold the text of a turn and its action, but not its thought.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seg_research.recipes.seg_research.grammar import parse_turn
from seg_research.records.schema import PredictionRow, TurnRecord


@dataclass(frozen=True, slots=True)
class Version1:
    """Reads thoughts from the text, and the claim of an answer from its action."""

    def complete(self, row: PredictionRow) -> PredictionRow:
        """Return the row as version 2 would have recorded it."""
        turns = tuple(map(_complete_turn, row.turns))
        answers = [
            turn.action
            for turn in turns
            if turn.action is not None and turn.action.get("kind") == "answer"
        ]
        absent = bool(answers) and answers[-1].get("objects") == []
        prediction = replace(row.prediction, answered=bool(answers), absent=absent)
        return replace(row, turns=turns, prediction=prediction)


READER = Version1()


def _complete_turn(turn: TurnRecord) -> TurnRecord:
    if not turn.by_policy or turn.thinking is not None:
        return turn
    return replace(turn, thinking=parse_turn(turn.text).thinking)
