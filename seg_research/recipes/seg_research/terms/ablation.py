"""Process terms that the published method was compared with (specs seg_research §5.6), in [0, 1]
each and paid only with an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Transcript
from seg_research.recipes.seg_research.actions import Answer, Search, ShowFrame
from seg_research.recipes.seg_research.final_answer import read_verdict
from seg_research.recipes.seg_research.terms.process import (
    WellFormed,
    paid_searches,
    useful_searches,
)
from seg_research.rewards.similarity import Similarity


@dataclass(frozen=True, slots=True)
class BinaryProcess:
    """1 where the episode is well-formed and consists of searches, then one key frame, then the
    answer; else 0.

    The claim that the target is absent needs no key frame.
    """

    name: str = "binary_process"

    def __call__(self, transcript: Transcript, truth: GroundTruth | None = None) -> float:
        """Score one transcript; the ground truth is not needed."""
        behind_searches = dropwhile(
            lambda turn: isinstance(turn.action, Search), transcript.model_turns
        )
        match [turn.action for turn in behind_searches]:
            case [ShowFrame(), Answer()] | [Answer(objects=())]:
                return WellFormed()(transcript)
            case _:
                return 0.0


@dataclass(frozen=True, slots=True)
class LinearProcess:
    """Useful searches, at most `budget`, + format, as a share of the most there can be; each search
    pays the same.

    Attributes:
        budget: 0 leaves the number of annotated steps as the only bound.
    """

    budget: int = 10
    name: str = "linear_process"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        if read_verdict(transcript).answer is None:
            return 0.0
        most = paid_searches(self.budget, truth)
        return (min(len(useful_searches(transcript)), most) + WellFormed()(transcript)) / (most + 1)


@dataclass(frozen=True, slots=True)
class DenseImitation:
    """Share of the annotated steps whose own search, the first for the first step and so on, is
    nearer than `threshold` in meaning.

    None where the sample has no annotated steps.

    Attributes:
        threshold: exclusive cosine of sentence embeddings (published: 0.5).
    """

    similarity: Similarity
    threshold: float = 0.5
    name: str = "dense_imitation"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float | None:
        """Score one transcript."""
        if not truth.steps:
            return None
        pairs = zip(self.queries(transcript, truth), truth.steps, strict=False)
        return sum(
            self.similarity.best(query, [step]) > self.threshold for query, step in pairs
        ) / len(truth.steps)

    def queries(self, transcript: Transcript, truth: GroundTruth) -> Sequence[str]:
        """Return the queries that will be compared."""
        if read_verdict(transcript).answer is None:
            return ()
        return [search.query for search in useful_searches(transcript)[: len(truth.steps)]]
