"""Did the policy set out to look up what the question needs? (specs seg_research §5.3.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seg_research.data.sample import GroundTruth
from seg_research.episode.transcript import Outcome, Transcript
from seg_research.recipes.seg_research.actions import Search
from seg_research.rewards.similarity import Similarity


def first_answered_query(transcript: Transcript) -> str | None:
    """Return the query of the first search, of text or of images, that found something.

    The original looks at text searches only, so that a question about a face, best put to the image
    search, earned nothing.
    """
    for turn, observation in transcript.exchanges():
        if (
            isinstance(turn.action, Search)
            and observation is not None
            and observation.outcome is Outcome.OK
        ):
            return turn.action.query
    return None


@dataclass(frozen=True, slots=True)
class Guidance:
    """1 where the first query is nearer than `threshold` to some annotated step (cosine of sentence
    embeddings), else 0.

    None where the sample has no annotated steps: there is nothing to compare with.

    Attributes:
        threshold: exclusive (published: 0.5).
        first_query: picks the query to judge.
    """

    similarity: Similarity
    threshold: float = 0.5
    first_query: Callable[[Transcript], str | None] = first_answered_query
    name: str = "guidance"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float | None:
        """Score one transcript."""
        if not truth.steps:
            return None
        query = self.first_query(transcript)
        return (
            0.0
            if query is None
            else float(self.similarity.best(query, truth.steps) > self.threshold)
        )

    def queries(self, transcript: Transcript, truth: GroundTruth) -> Sequence[str]:
        """Return the query to judge, if there is one."""
        query = self.first_query(transcript)
        return () if query is None else (query,)
