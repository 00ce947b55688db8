"""Was the way there well made? Format and tapering search terms (specs seg_research §5.2, §5.4)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from seg_research.core.transcript import Outcome, Transcript
from seg_research.datasets.sample import GroundTruth
from seg_research.protocol.actions import FormatFault, Search
from seg_research.protocol.verdict import read_verdict


@dataclass(frozen=True, slots=True)
class WellFormed:
    """1 where the episode ends in an answer on a shown key frame, every turn was valid and every turn began with a thought; else 0.

    Attributes:
        graded: pay up to 0.5 for the share of well-formed turns where the whole is not perfect, a gradient for weak policies.
    """

    graded: bool = False
    name: str = "format"

    def __call__(self, transcript: Transcript, truth: GroundTruth | None = None) -> float:
        """Score one transcript; the ground truth is not needed."""
        keyframe, answer = read_verdict(transcript)
        turns = [bool(turn.thinking) and not isinstance(turn.action, FormatFault) for turn in transcript.model_turns]
        if keyframe is not None and answer is not None and all(turns):
            return 1.0
        return 0.5 * sum(turns) / len(turns) if self.graded and turns else 0.0


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
