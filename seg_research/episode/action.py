"""What a model turn can mean, as far as the episode is concerned. Recipes and tools derive their
own actions.

A malformed turn is an action as well, since a bad turn is data and no failure of the program.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action:
    """Base of everything a model turn can mean."""

    __slots__ = ()

    @property
    def is_final(self) -> bool:
        """Tell whether the episode ends with this action."""
        return False


class FaultKind(StrEnum):
    """What was wrong with a turn."""

    NO_ACTION = "no_action"
    SEVERAL_ACTIONS = "several_actions"
    UNCLOSED_TAG = "unclosed_tag"
    BAD_NESTING = "bad_nesting"
    BAD_JSON = "bad_json"
    BAD_FIELDS = "bad_fields"
    UNKNOWN_TOOL = "unknown_tool"
    EMPTY_QUERY = "empty_query"
    BAD_FRAME = "bad_frame"
    BAD_BOX = "bad_box"
    BAD_POINT = "bad_point"
    TOO_LONG = "too_long"


@dataclass(frozen=True, slots=True)
class FormatFault(Action):
    """A turn that is not a valid action. `detail` is fixed text plus at most a short excerpt, safe
    to show to the policy.
    """

    kind: FaultKind
    detail: str


@dataclass(frozen=True, slots=True)
class ParsedTurn:
    """One model turn, read."""

    action: Action
    thinking: str | None = None
    """Content of the thinking block that precedes the action, stripped; None without one."""
