"""How long an episode may become."""

from __future__ import annotations

from dataclasses import dataclass

from seg_common.errors import UsageError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one episode; published values are the defaults (specs seg_research §3.1).

    Attributes:
        max_tool_calls: searches, key frames and repaired faults together; one more turn may follow,
            for the answer.
        max_faults: malformed turns the policy may repair; the next one ends the episode.
        max_turn_tokens: sampled tokens of one turn.
        max_response_tokens: everything after the initial prompt, observations included.
        reserve_tokens: kept free for the answer, at least one; an observation that would eat into
            it is not shown.
    """

    max_tool_calls: int = 6
    max_faults: int = 2
    max_turn_tokens: int = 4096
    max_response_tokens: int = 8192
    reserve_tokens: int = 256

    def __post_init__(self) -> None:
        if self.max_tool_calls < 1 or self.max_faults < 0 or self.max_turn_tokens < 1:
            raise UsageError(
                f"{self}: expected max_tool_calls >= 1, max_faults >= 0, max_turn_tokens >= 1"
            )
        if not 1 <= self.reserve_tokens < self.max_response_tokens:
            raise UsageError(f"{self}: expected 1 <= reserve_tokens < max_response_tokens")
