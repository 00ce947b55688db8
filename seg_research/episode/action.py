"""What a model turn can mean, as far as the episode is concerned. Recipes and tools derive their
own actions.

A malformed turn is an action as well, since a bad turn is data and no failure of the program.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic_core import to_jsonable_python


class Action:
    """Base of everything a model turn can mean; derive frozen dataclasses from it.

    `kind` is its name in records: the class name in lower case, where a class does not say.
    """

    __slots__ = ()
    kind: ClassVar[str] = "action"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" not in vars(cls):
            cls.kind = cls.__name__.lower()

    @property
    def is_final(self) -> bool:
        """Tell whether the episode ends with this action."""
        return False

    def to_json(self) -> dict[str, Any]:
        """Return `kind` and the fields as plain JSON values, as records store an action."""
        fields: dict[str, Any] = to_jsonable_python(self) if dataclasses.is_dataclass(self) else {}
        return {"kind": self.kind, **fields}


@dataclass(frozen=True, slots=True)
class FormatFault(Action):
    """A turn that is not a valid action.

    Attributes:
        fault: what was wrong, one of the few names that the grammar uses.
        detail: fixed text plus at most a short excerpt, safe to show to the policy.
    """

    fault: str
    detail: str
    kind: ClassVar[str] = "fault"


@dataclass(frozen=True, slots=True)
class ParsedTurn:
    """One model turn, read."""

    action: Action
    thinking: str | None = None
    """Content of the thinking block that precedes the action, stripped; None without one."""
