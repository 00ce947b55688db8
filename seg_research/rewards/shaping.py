"""Length shaping of training rewards (DAPO, arXiv:2503.14476, §3.4 and eq. 13): long episodes are
warned before they are cut.

Only training is shaped: what an answer deserves does not depend on how much room the trainer had.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seg_common.errors import UsageError
from seg_research.episode.transcript import StopReason, Transcript
from seg_research.rewards.rubric import Score

OVERLONG = "overlong"
"""Name of the shaping among a score's terms."""

_CUT = (StopReason.TURN_TRUNCATED, StopReason.TOO_LONG)


@dataclass(frozen=True, slots=True)
class OverlongSettings:
    """What length costs.

    Attributes:
        buffer_share: last part of the response budget in which the penalty grows from 0 to
            `penalty` (the paper: 0.2).
        penalty: what an episode that fills the budget loses, in units of reward; 0 shapes nothing
            (the paper: 1).
        mask_truncated: episodes that were cut teach nothing; their reward still counts in their
            group's baseline.
    """

    buffer_share: float = 0.2
    penalty: float = 0.0
    mask_truncated: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.buffer_share <= 1:
            raise UsageError(
                f"seg.overlong: buffer_share={self.buffer_share}: expected a share of the response "
                "budget above 0, at most 1"
            )
        if not 0 <= self.penalty < 1000:
            raise UsageError(
                f"seg.overlong: penalty={self.penalty}: expected 0 (no shaping) or more, in units "
                "of reward"
            )


def was_cut(transcript: Transcript) -> bool:
    """Tell whether a budget ended this episode in the middle."""
    return transcript.stop in _CUT


def overlong(num_tokens: int, max_tokens: int, buffer_tokens: float) -> float:
    """Soft overlong punishment: 0 up to `max_tokens - buffer_tokens`, then falling in a straight
    line to -1 at `max_tokens` and beyond.
    """
    return -min(1.0, max(0.0, (num_tokens - (max_tokens - buffer_tokens)) / buffer_tokens))


def shaped(
    score: Score,
    transcript: Transcript,
    num_tokens: int,
    max_tokens: int,
    settings: OverlongSettings,
) -> Score:
    """Add the shaping to a score, as one more term.

    Args:
        score: one without a total, of a failed episode, stays as it is.
        transcript: of `score`.
        num_tokens: everything after the initial prompt, observations included, because the budget
            includes them.
        max_tokens: that budget.
        settings: with a penalty of 0 the score stays as it is.
    """
    if score.total is None or settings.penalty == 0:
        return score
    # An observation that did not fit was left out: with it, the episode would have been longer than
    # the budget.
    length = max_tokens if transcript.stop is StopReason.TOO_LONG else num_tokens
    value = overlong(length, max_tokens, settings.buffer_share * max_tokens)
    paid = settings.penalty * value
    return replace(
        score,
        total=score.total + paid,
        terms={**score.terms, OVERLONG: value},
        paid={**score.paid, OVERLONG: paid},
    )
