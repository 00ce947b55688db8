"""Was the way there well made? Format and tapering search terms (specs seg_research §5.2, §5.4)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from seg_research.core.transcript import ModelTurn, Observation, Outcome, Transcript
from seg_research.datasets.sample import GroundTruth
from seg_research.protocol.actions import FormatFault, Search
from seg_research.protocol.verdict import read_verdict


@dataclass(frozen=True, slots=True)
class WellFormed:
    """1 where the episode ends in an answer on a shown key frame, every turn was valid and every turn began with a thought; else 0.

    Attributes:
        graded: where the whole is not perfect, pay for the share of turns that were well-formed and not refused, up to 0.5 with an
            answer and 0.25 without; a gradient for weak policies.
    """

    graded: bool = False
    name: str = "format"

    def __call__(self, transcript: Transcript, truth: GroundTruth | None = None) -> float:
        """Score one transcript; the ground truth is not needed."""
        keyframe, answer = read_verdict(transcript)
        answered = keyframe is not None and answer is not None
        turns = transcript.model_turns
        if answered and all(_is_well_formed(turn) for turn in turns):
            return 1.0
        if not self.graded or not turns:
            return 0.0
        good = sum(_is_well_formed(turn) and not _was_refused(observation) for turn, observation in transcript.exchanges())
        return (0.5 if answered else 0.25) * good / len(turns)


def _is_well_formed(turn: ModelTurn) -> bool:
    return bool(turn.thinking) and not isinstance(turn.action, FormatFault)


def _was_refused(observation: Observation | None) -> bool:
    return observation is not None and observation.outcome is Outcome.REJECTED


@dataclass(frozen=True, slots=True)
class Tapering:
    """1 - (1 - p)^k with k = distinct answered searches (at most `cap`) + format; in [0, 1), each further search pays less.

    Paid only to trajectories that answer: the original pays seven unanswered searches more than any answer (findings B5b).
    """

    p: float = 0.7
    cap: int = 10
    name: str = "tapering"

    def __call__(self, transcript: Transcript, truth: GroundTruth | None = None) -> float:
        """Score one transcript; the ground truth is not needed."""
        if read_verdict(transcript).answer is None:
            return 0.0
        distinct = {
            (turn.action.kind, _words(turn.action.query))
            for turn, observation in transcript.exchanges()
            if isinstance(turn.action, Search) and turn.thinking and observation is not None and observation.outcome is Outcome.OK
        }
        return 1 - (1 - self.p) ** (min(len(distinct), self.cap) + WellFormed()(transcript))


def _words(query: str) -> frozenset[str]:
    """Reduce a query to its set of words: punctuation, case, order and repetition make no new question."""
    folded = unicodedata.normalize("NFKC", query).casefold()
    return frozenset("".join(character if character.isalnum() else " " for character in folded).split())
