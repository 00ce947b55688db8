"""The episode as a state machine without I/O: it is told what the policy said and what the tools
returned, and says what comes next.

Invariants: turns alternate model, observation, model, …; nothing follows the stop; an action after
the last permitted tool call is recorded but not carried out.
"""

from __future__ import annotations

from seg_common.errors import InvariantError
from seg_research.data.sample import Sample
from seg_research.episode.action import Action, FormatFault
from seg_research.episode.grammar import Grammar
from seg_research.episode.limits import Limits
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import (
    FinishReason,
    Message,
    ModelTurn,
    Observation,
    StopReason,
    TokenTrace,
    Transcript,
)


class Episode:
    """One attempt at one sample."""

    def __init__(
        self, sample: Sample, prompt: tuple[Message, ...], grammar: Grammar, limits: Limits
    ) -> None:
        """Start before the first turn; `prompt` is what the policy is shown first."""
        self.sample = sample
        self.prompt = prompt
        self.grammar = grammar
        self.limits = limits
        self.stop: StopReason | None = None
        self._turns: list[ModelTurn | Observation] = []
        self._num_tool_calls = 0
        self._num_faults = 0
        self._error = ""

    def take_turn(self, generation: Generation) -> Action | None:
        """Record a model turn. Return the action to carry out (a `FormatFault` is to be explained
        to the policy), or None at the end.
        """
        self._expect_running()
        if self._turns and isinstance(self._turns[-1], ModelTurn):
            raise InvariantError(
                f"sample {self.sample.sample_id}: a model turn must follow an observation"
            )
        # Halves of surrogate pairs can come from a remote policy's JSON; no file and no tokenizer
        # takes them.
        text = generation.text.encode("utf-8", "replace").decode("utf-8")
        parsed = self.grammar.parse(text)
        self._turns.append(
            ModelTurn(
                text,
                parsed.action,
                parsed.thinking,
                generation.finish,
                generation.num_tokens,
                generation.logprobs,
                generation.seconds,
            )
        )
        self.stop = self._stop_after(parsed.action, generation.finish)
        return None if self.stop else parsed.action

    def _stop_after(self, action: Action, finish: FinishReason) -> StopReason | None:
        if action.is_final:
            return StopReason.ANSWERED
        if isinstance(action, FormatFault):
            if finish is FinishReason.LENGTH:
                return StopReason.TURN_TRUNCATED
            self._num_faults += 1
            if self._num_faults > self.limits.max_faults:
                return StopReason.NO_ACTION
        self._num_tool_calls += 1
        return StopReason.TURN_LIMIT if self._num_tool_calls > self.limits.max_tool_calls else None

    def take_observation(self, observation: Observation) -> None:
        """Record what the policy was shown."""
        self._expect_running()
        if not self._turns or isinstance(self._turns[-1], Observation):
            raise InvariantError(
                f"sample {self.sample.sample_id}: an observation must follow a model turn"
            )
        self._turns.append(observation)

    def halt(self, reason: StopReason, error: str = "") -> None:
        """End the episode from outside: no room left, or a service failed."""
        self._expect_running()
        self.stop, self._error = reason, error

    def transcript(self, tokens: TokenTrace | None = None) -> Transcript:
        """Return the finished record."""
        if self.stop is None:
            raise InvariantError(f"sample {self.sample.sample_id}: the episode is still running")
        return Transcript(
            self.sample.sample_id, self.prompt, tuple(self._turns), self.stop, tokens, self._error
        )

    def _expect_running(self) -> None:
        if self.stop is not None:
            raise InvariantError(
                f"sample {self.sample.sample_id}: the episode already stopped ({self.stop})"
            )
