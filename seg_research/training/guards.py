"""Stop a run that trains on broken tools, with the reason, instead of letting it go on unnoticed.

The original trained for 99 steps while each of its key-frame calls failed (findings B5a).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from seg_research.core.transcript import Outcome, StopReason, Transcript


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Thresholds.

    Attributes:
        min_tool_success: a tool that works in a smaller share of its calls stops the run.
        max_infra_share: a larger share of episodes ended by failing services stops the run.
        min_calls: calls of a tool, or episodes, before a share means anything.
    """

    min_tool_success: float = 0.1
    max_infra_share: float = 0.05
    min_calls: int = 64


@dataclass(slots=True)
class Guards:
    """Counts since the start of this process, and judges them."""

    settings: GuardSettings
    _calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _worked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _episodes: int = 0
    _infra: int = 0
    _last_error: str = ""
    _last_refusal: dict[str, str] = field(default_factory=dict)

    def count(self, transcript: Transcript) -> str | None:
        """Count one episode; return the reason to stop the run, if there is one now."""
        self._episodes += 1
        if transcript.stop is StopReason.INFRA:
            self._infra += 1
            self._last_error = transcript.error
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
        limit = self.settings.max_infra_share
        if self._episodes < self.settings.min_calls or self._infra <= limit * self._episodes:
            return None
        return f"{self._infra} of {self._episodes} episodes were ended by a failing service (limit {limit:.0%}); the last one: {self._last_error}"

    def _broken_tool(self) -> str | None:
        limit = self.settings.min_tool_success
        for tool, calls in self._calls.items():
            if calls >= self.settings.min_calls and self._worked[tool] < limit * calls:
                last = self._last_refusal.get(tool, "")
                return f"tool {tool} worked in {self._worked[tool]} of {calls} calls (limit {limit:.0%}); the last refusal: {last}"
        return None
