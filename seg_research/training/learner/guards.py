"""Stop a run that trains on broken tools or no longer trains anything, with the reason, instead of
letting it go on unnoticed.

The original trained for 99 steps while each of its key-frame calls failed (findings B5a). `Guards`
counts episodes in each worker, `StepGuards` reads the metrics of each step in the trainer.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from seg_common.errors import UsageError
from seg_research.episode.transcript import Outcome, StopReason, Transcript


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Thresholds.

    Attributes:
        min_tool_success: a tool that works in a smaller share of its calls stops the run.
        max_infra_share: a larger share of the last `min_calls` episodes ended by failing services
            stops the run.
        min_calls: calls of a tool before the share that worked means anything; number of last
            episodes looked at.
        min_entropy: of the policy, in nats a token; less for `patience` steps on end stops the run.
        max_truncated: a larger share of episodes cut by a budget, for `patience` steps on end,
            stops the run.
        max_turn_growth: turns longer than this many times their length in the first `patience`
            steps stop the run after as many.
        max_logprob_gap: mean distance of rollout and trainer in log-probability, in nats a token;
            more for `patience` steps on end stops the run. Above it importance weights mean nothing
            any more (rounding alone makes about 0.01 in bf16).
        patience: steps; as many on end without any advantage stop the run as well.
    """

    min_tool_success: float = 0.1
    max_infra_share: float = 0.05
    min_calls: int = 64
    min_entropy: float = 0.001
    max_truncated: float = 0.9
    max_turn_growth: float = 4.0
    max_logprob_gap: float = 0.5
    patience: int = 5

    def __post_init__(self) -> None:
        if not (
            0 <= self.min_tool_success <= 1
            and 0 <= self.max_infra_share <= 1
            and self.min_calls >= 1
        ):
            raise UsageError(
                f"seg.guards: expected shares in 0..1 and min_calls >= 1, found {self}"
            )
        sound = (
            self.min_entropy >= 0
            and 0 <= self.max_truncated <= 1
            and self.max_turn_growth > 1
            and self.max_logprob_gap > 0
        )
        if not (sound and self.patience >= 1):
            raise UsageError(
                "seg.guards: expected min_entropy >= 0, a share max_truncated, max_turn_growth > "
                "1, max_logprob_gap > 0, patience >= 1, "
                f"found {self}"
            )


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
        limit, errors = (
            self.settings.max_infra_share,
            [error for error in self._infra_errors if error is not None],
        )
        # Of the whole window, also while it fills: an outage in the first step of a run is one,
        # too.
        if len(errors) <= limit * self.settings.min_calls:
            return None
        seen = len(self._infra_errors)
        return (
            f"{len(errors)} of the last {seen} episodes were ended by a failing service (limit "
            f"{limit:.0%}); the last one: {errors[-1]}"
        )

    def _broken_tool(self) -> str | None:
        limit = self.settings.min_tool_success
        for tool, calls in self._calls.items():
            if calls >= self.settings.min_calls and self._worked[tool] < limit * calls:
                last = self._last_refusal.get(tool, "")
                return (
                    f"tool {tool} worked in {self._worked[tool]} of {calls} calls (limit "
                    f"{limit:.0%}); the last refusal: {last}"
                )
        return None


_MUST_BE_FINITE = (
    "actor/pg_loss",
    "actor/loss",
    "actor/kl_loss",
    "actor/entropy",
    "actor/grad_norm",
    "seg/logprob_gap/max",
)


@dataclass(slots=True)
class StepGuards:
    """Judges the steps since the start of this process, one after the other; what a step did not
    measure is not judged.
    """

    settings: GuardSettings
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _turn_tokens: list[float] = field(default_factory=list)

    def judge(self, metrics: Mapping[str, float]) -> str | None:
        """Take in the metrics of one step; return the reason to stop the run, if there is one."""
        broken = next(
            (
                name
                for name in _MUST_BE_FINITE
                if name in metrics and not math.isfinite(metrics[name])
            ),
            None,
        )
        if broken:
            return (
                f"{broken} is {metrics[broken]}: the update has failed; lower the learning rate or "
                "go back to an earlier checkpoint"
            )
        found = {name: reason for name, reason in self._complaints(metrics) if reason}
        self._in_a_row = {name: self._in_a_row.get(name, 0) + 1 for name in found}
        lasting = next(
            (name for name, steps in self._in_a_row.items() if steps >= self.settings.patience),
            None,
        )
        return (
            None
            if lasting is None
            else f"{found[lasting]}, for {self.settings.patience} steps on end"
        )

    def _complaints(self, metrics: Mapping[str, float]) -> list[tuple[str, str | None]]:
        limits = self.settings
        names = (
            "actor/entropy",
            "seg/mean/truncated",
            "seg/groups/no_signal",
            "seg/logprob_gap/mean",
        )
        entropy, cut, silent, gap = (metrics.get(name) for name in names)
        return [
            (
                "entropy",
                None
                if entropy is None or entropy >= limits.min_entropy
                else _collapse(entropy, limits.min_entropy),
            ),
            (
                "cut",
                None
                if cut is None or cut <= limits.max_truncated
                else _cut_short(cut, limits.max_truncated),
            ),
            (
                "signal",
                "in no group any rollout earned more than another, so nothing is learnt"
                if silent == 1
                else None,
            ),
            (
                "gap",
                None
                if gap is None or gap <= limits.max_logprob_gap
                else _drifted(gap, limits.max_logprob_gap),
            ),
            ("length", self._length(metrics.get("seg/mean/tokens_per_turn"))),
        ]

    def _length(self, tokens: float | None) -> str | None:
        if tokens is None:
            return None
        if len(self._turn_tokens) < self.settings.patience:
            self._turn_tokens.append(tokens)
            return None
        usual, limit = (
            sum(self._turn_tokens) / len(self._turn_tokens),
            self.settings.max_turn_growth,
        )
        return (
            f"turns of {tokens:.0f} tokens, at first {usual:.0f} (limit: {limit:g} times)"
            if tokens > limit * usual
            else None
        )


def _collapse(entropy: float, limit: float) -> str:
    return f"the policy's entropy is {entropy:.2g} (limit {limit:g}): it no longer tries anything"


def _cut_short(share: float, limit: float) -> str:
    return f"{share:.0%} of the episodes were cut by a budget (limit {limit:.0%})"


def _drifted(gap: float, limit: float) -> str:
    return (
        f"rollout and trainer are {gap:.2g} nats a token apart (limit {limit:g}): "
        "seg/logprob_gap/turn_<n> tells from which turn on"
    )
