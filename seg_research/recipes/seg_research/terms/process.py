"""Was the way there well made? Format and tapering search terms (specs seg_research §5.2, §5.4)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from seg_research.data.sample import GroundTruth
from seg_research.episode.action import FormatFault
from seg_research.episode.transcript import ModelTurn, Observation, Outcome, Transcript
from seg_research.recipes.seg_research.actions import Search
from seg_research.recipes.seg_research.final_answer import read_verdict


@dataclass(frozen=True, slots=True)
class WellFormed:
    """1 where the episode ends in a complete verdict, every turn was valid and every turn began
    with a thought; else 0; in [0, 1].

    Attributes:
        graded: where the whole is not perfect, pay by the share of turns that were well-formed and
            not refused: 0.25 to 0.75 with a complete verdict, 0.25 to 0.5 with an answer on no
            frame, 0 to 0.25 without an answer; a gradient for weak policies.
    """

    graded: bool = False
    name: str = "format"

    def __call__(self, transcript: Transcript, truth: GroundTruth | None = None) -> float:
        """Score one transcript; the ground truth is not needed."""
        verdict, turns = read_verdict(transcript), transcript.model_turns
        if verdict.is_complete and all(map(_is_well_formed, turns)):
            return 1.0
        if not self.graded or not turns:
            return 0.0
        share = sum(
            _is_well_formed(turn) and not _was_refused(observation)
            for turn, observation in transcript.exchanges()
        ) / len(turns)
        if verdict.is_complete:
            return 0.25 + 0.5 * share
        return 0.25 * share + (0.0 if verdict.answer is None else 0.25)


def _is_well_formed(turn: ModelTurn) -> bool:
    return bool(turn.thinking) and not isinstance(turn.action, FormatFault)


def _was_refused(observation: Observation | None) -> bool:
    return observation is not None and observation.outcome is Outcome.REJECTED


@dataclass(frozen=True, slots=True)
class Tapering:
    """1 - (1 - p)^k with k = useful searches, at most `budget`, + format; in [0, 1), each further
    search pays less.

    Paid only to trajectories that answer: the original pays seven unanswered searches more than any
    answer (findings B5b). Where the annotated steps are known, no more searches are paid than there
    are steps.

    Attributes:
        budget: 0 leaves the number of annotated steps as the only bound.
    """

    p: float = 0.7
    budget: int = 10
    name: str = "tapering"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        if read_verdict(transcript).answer is None:
            return 0.0
        return 1 - (1 - self.p) ** (
            min(len(useful_searches(transcript)), paid_searches(self.budget, truth))
            + WellFormed()(transcript)
        )


def paid_searches(budget: int, truth: GroundTruth) -> int:
    """Return how many searches a question may be paid for: the budget, but no more than it has
    annotated steps.
    """
    needed = len(truth.steps)
    return min(budget, needed) if budget and needed else budget or needed


def useful_searches(transcript: Transcript) -> list[Search]:
    """List the searches that add something: behind a thought, of a new question, and answered by
    something that was not shown before.
    """
    asked: set[tuple[str, frozenset[str]]] = set()
    shown: set[str] = set()
    useful: list[Search] = []
    for turn, observation in transcript.exchanges():
        if not (
            isinstance(turn.action, Search)
            and turn.thinking
            and observation is not None
            and observation.outcome is Outcome.OK
        ):
            continue
        question, result = (
            (turn.action.tool, _words(turn.action.query)),
            observation.message.plain(),
        )
        if question not in asked and result not in shown:
            useful.append(turn.action)
        asked.add(question)
        shown.add(result)
    return useful


def _words(query: str) -> frozenset[str]:
    """Reduce a query to its set of words: punctuation, case, order and repetition make no new
    question.
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return frozenset(
        "".join(character if character.isalnum() else " " for character in folded).split()
    )
