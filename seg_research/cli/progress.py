"""Progress on stderr, so that what a command prints can go into a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm


def entry_progress(what: str, total: int) -> Callable[[int], None]:
    """Show work on a corpus; return a function that is told how many more entries are done."""
    bar = tqdm(total=total, desc=what, unit="entry", file=sys.stderr, disable=None)

    def advance(num_done: int) -> None:
        bar.update(num_done)
        if bar.n >= total:
            bar.close()

    return advance


def show_step(bar: tqdm[Any], step: int, figures: Mapping[str, str]) -> None:
    """Move a bar to a step and show figures beside it."""
    bar.set_postfix_str(", ".join(f"{name}={figure}" for name, figure in figures.items()), False)
    bar.update(step - bar.n)
