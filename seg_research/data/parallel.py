"""The same function over many items, in one process or several; results come in the order of the
items either way.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeAlias, TypeVar

from seg_common.worker_processes import start_worker

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many items are done, of how many."""


def map_ordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Apply a picklable function; the first exception ends the work and is raised here."""
    if workers <= 1 or len(items) <= 1:
        yield from _counted(map(function, items), len(items), progress)
        return
    # Spawned, not forked: OpenCV and Arrow hold threads that a fork would leave locked.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), context, start_worker) as pool:
        try:
            yield from _counted(pool.map(function, items), len(items), progress)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _counted(results: Iterator[Result], total: int, progress: Progress | None) -> Iterator[Result]:
    for done, result in enumerate(results, 1):
        if progress is not None:
            progress(done, total)
        yield result
