"""How long work is followed from outside."""

from __future__ import annotations

from collections.abc import Callable

StartProgress = Callable[[str, int], Callable[[int], None]]
"""(what is being done, number of entries) -> a function that is told how many more are done."""


def no_progress(_: str, __: int) -> Callable[[int], None]:
    """Follow nothing."""
    return lambda _: None
