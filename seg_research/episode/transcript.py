"""What happened in one episode: model turns and observations as separate objects, from the first
token on.

Everything that judges a trajectory reads model turns only; text that came from a tool or a web page
can never be mistaken for the model's own. The transcript does not know any recipe's grammar: an
action is whatever that grammar's parser returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest

from PIL import Image

from seg_common.errors import InvariantError
from seg_research.episode.action import Action

IMAGE_PLACEHOLDER = "<image>"
"""Stands in plain text where an image was shown."""


class FinishReason(StrEnum):
    """Why one generation ended."""

    STOP = "stop"
    """End-of-turn token or stop string."""
    LENGTH = "length"
    """The turn's token budget ran out; the text is cut."""


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    NO_ACTION = "no_action"
    """The model ended its turn without a usable action more often than the limits allow."""
    TURN_LIMIT = "turn_limit"
    """An action came after the last permitted tool call; it was not executed."""
    TURN_TRUNCATED = "turn_truncated"
    """A turn was cut by its token budget."""
    TOO_LONG = "too_long"
    """The next observation did not fit in what is left of the context; it was not shown."""
    PROMPT_TOO_LONG = "prompt_too_long"
    INFRA = "infra"
    """A service failed after retries; says nothing about the policy."""


class Outcome(StrEnum):
    """How a tool call went."""

    OK = "ok"
    EMPTY = "empty"
    """The tool worked and found nothing."""
    REJECTED = "rejected"
    """The request could not be carried out; the policy was told why."""
    FAULT = "fault"
    """The turn was malformed; the policy was told what was expected."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image the policy was shown: pixels for the host, where it came from for the record."""

    image: Image.Image = field(repr=False, compare=False)
    source: str
    """File path or address, for logs and viewers."""
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of message text."""

    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message: role and interleaved text and images."""

    role: str
    parts: tuple[Text | ImageRef, ...]

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Images in the order they are shown."""
        return tuple(p for p in self.parts if isinstance(p, ImageRef))

    def plain(self) -> str:
        """Return the text with `<image>` where images stand."""
        return "".join(p.text if isinstance(p, Text) else IMAGE_PLACEHOLDER for p in self.parts)


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """One generation of the policy and what it means."""

    text: str
    action: Action
    thinking: str | None = None
    """Content of the thinking block before the action; None without one."""
    finish: FinishReason = FinishReason.STOP
    num_tokens: int = 0
    logprobs: tuple[float, ...] = ()
    """Log-probability of each sampled token, when the host knows it."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy was shown after a turn."""

    message: Message
    tool: str
    outcome: Outcome
    summary: str = ""
    """One line for logs."""
    seconds: float = 0.0
    cached: bool = False
    """The service had been asked before."""


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """Tokens of a whole episode, as sampled, never re-encoded from text.

    Attributes:
        prompt_ids: the initial prompt, (P,).
        response_ids: everything after it, model turns and observations, (R,).
        response_mask: 1 on sampled tokens, 0 on everything the host inserted, (R,).
        response_logprobs: of sampled tokens under the sampling policy, 0.0 elsewhere, (R,).
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    response_mask: tuple[int, ...]
    response_logprobs: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = len(self.response_ids), len(self.response_mask), len(self.response_logprobs)
        if len(set(lengths)) != 1:
            raise InvariantError(
                f"TokenTrace: ids, mask and log-probabilities have lengths {lengths}"
            )


@dataclass(frozen=True, slots=True)
class Transcript:
    """One finished episode."""

    sample_id: str
    prompt: tuple[Message, ...]
    turns: tuple[ModelTurn | Observation, ...]
    stop: StopReason
    tokens: TokenTrace | None = None
    error: str = ""
    """Why the infrastructure failed, where it did."""

    @property
    def model_turns(self) -> tuple[ModelTurn, ...]:
        """The policy's own turns: the only part a reward may read text from."""
        return tuple(t for t in self.turns if isinstance(t, ModelTurn))

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What tools returned, in order."""
        return tuple(t for t in self.turns if isinstance(t, Observation))

    def exchanges(self) -> Iterator[tuple[ModelTurn, Observation | None]]:
        """Pair each model turn with the observation it led to (None after the last)."""
        for turn, following in zip_longest(self.turns, self.turns[1:]):
            if isinstance(turn, ModelTurn):
                yield turn, following if isinstance(following, Observation) else None

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image shown, prompt and observations together, in token order."""
        shown = [image for message in self.prompt for image in message.images]
        shown += [
            image for observation in self.observations for image in observation.message.images
        ]
        return tuple(shown)
