"""How long an episode may become."""

from __future__ import annotations

from typing import Annotated, Self

import pydantic
from pydantic import Field, model_validator

Count = Annotated[int, Field(ge=1)]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class Limits:
    """Bounds of one episode; published values are the defaults (specs seg_research §3.1).

    Attributes:
        max_tool_calls: searches, key frames and repaired faults together; one more turn may follow,
            for the answer.
        max_faults: malformed turns the policy may repair; the next one ends the episode.
        max_turn_tokens: sampled tokens of one turn.
        max_response_tokens: everything after the initial prompt, observations included.
        reserve_tokens: kept free for the answer; an observation that would eat into it is not
            shown.
    """

    max_tool_calls: Count = 6
    max_faults: Annotated[int, Field(ge=0)] = 2
    max_turn_tokens: Count = 4096
    max_response_tokens: Count = 8192
    reserve_tokens: Count = 256

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.reserve_tokens >= self.max_response_tokens:
            raise ValueError(
                f"reserve_tokens={self.reserve_tokens}: expected less than "
                f"max_response_tokens={self.max_response_tokens}"
            )
        return self
