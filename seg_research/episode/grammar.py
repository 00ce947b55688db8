"""The language in which a policy acts: how a turn is read, written, and refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from seg_research.episode.action import Action, FormatFault, ParsedTurn


class Grammar(Protocol):
    """The grammar of one recipe; `parse(write(action, thinking))` gives the same action again."""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """A generation ends behind the first of these."""
        ...

    @property
    def tags(self) -> frozenset[str]:
        """Names of the tags that mean something here; foreign text must not hold them intact."""
        ...

    def parse(self, text: str) -> ParsedTurn:
        """Read a turn: total, linear in the length of the text, and never raising."""
        ...

    def write(self, action: Action, thinking: str | None) -> str:
        """Write a turn that means this action, as an expert would.

        Raises:
            InvariantError: no turn of this grammar means that.
        """
        ...

    def fault_text(self, fault: FormatFault) -> str:
        """Tell the policy what was wrong with its turn and what is expected."""
        ...

    def read_action(self, fields: Mapping[str, Any]) -> Action:
        """Rebuild an action from its JSON form (`Action.to_json`).

        Raises:
            UsageError: it is not the JSON form of an action of this grammar.
        """
        ...
