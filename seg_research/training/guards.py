"""Stop a run that trains on broken tools, with the reason, instead of letting it go on unnoticed.

The original trained for 99 steps while each of its key-frame calls failed (findings B5a).
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from seg_research.core.errors import UsageError
from seg_research.core.transcript import Outcome, StopReason, Transcript


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Thresholds.

    Attributes:
        min_tool_success: a tool that works in a smaller share of its calls stops the run.
        max_infra_share: a larger share of the last `min_calls` episodes ended by failing services stops the run.
        min_calls: calls of a tool before the share that worked means anything; number of last episodes looked at.
    """

    min_tool_success: float = 0.1
    max_infra_share: float = 0.05
    min_calls: int = 64

    def __post_init__(self) -> None:
        if not (0 <= self.min_tool_success <= 1 and 0 <= self.max_infra_share <= 1 and self.min_calls >= 1):
            raise UsageError(f"seg.guards: expected shares in 0..1 and min_calls >= 1, found {self}")


@dataclass(slots=True)
class Guards:
    """Counts since the start of this process, and judges them."""

    settings: GuardSettings
    _calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _worked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _infra_errors: deque[str | None] = field(init=False)
    _last_refusal: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._infra_errors = deque(maxlen=self.settings.min_calls)

    def count(self, transcript: Transcript) -> str | None:
        """Count one episode; return the reason to stop the run, if there is one now."""
        self._infra_errors.append(transcript.error if transcript.stop is StopReason.INFRA else None)
        for observation in transcript.observations:
            if observation.outcome is Outcome.FAULT:
                continue
            self._calls[observation.tool] += 1
            if observation.outcome in (Outcome.OK, Outcome.EMPTY):
                self._worked[observation.tool] += 1
            else:
                self._last_refusal[observation.tool] = observation.summary
        return self._broken_service() or self._broken_tool()

    def _broken_service(self) -> str | None:
        limit, errors = self.settings.max_infra_share, [error for error in self._infra_errors if error is not None]
        # Of the whole window, also while it fills: an outage in the first step of a run is one, too.
        if len(errors) <= limit * self.settings.min_calls:
            return None
        seen = len(self._infra_errors)
        return f"{len(errors)} of the last {seen} episodes were ended by a failing service (limit {limit:.0%}); the last one: {errors[-1]}"

    def _broken_tool(self) -> str | None:
        limit = self.settings.min_tool_success
        for tool, calls in self._calls.items():
            if calls >= self.settings.min_calls and self._worked[tool] < limit * calls:
                last = self._last_refusal.get(tool, "")
                return f"tool {tool} worked in {self._worked[tool]} of {calls} calls (limit {limit:.0%}); the last refusal: {last}"
        return None
