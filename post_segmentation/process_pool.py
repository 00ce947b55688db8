"""Spread tasks over the processes of this machine, one GPU each where there are GPUs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

from seg_common.errors import InfraError
from seg_common.worker_processes import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int, num_gpus: int = 0
) -> Iterator[Result]:
    """Run the function on all tasks; give results as they come.

    Args:
        function: importable, and its tasks and results picklable.
        tasks: what to run it on.
        num_workers: processes; 1 works in this one.
        num_gpus: the processes share them in turn; 0 leaves the choice to the function.

    Raises:
        InfraError: a process was killed.
    """
    num_workers = min(num_workers, len(tasks))
    if num_workers <= 1:
        yield from map(function, tasks)
        return
    # Fresh processes: OpenCV, PyAV and torch hold threads, locks and contexts that a fork would
    # copy in an unknown state.
    context = multiprocessing.get_context("spawn")
    started = context.Value("i", 0)
    pool = ProcessPoolExecutor(
        num_workers,
        context,
        initializer=_start_worker,
        initargs=(started, num_workers, _gpu_names(num_gpus)),
    )
    try:
        for finished in as_completed([pool.submit(function, task) for task in tasks]):
            yield finished.result()
    except BrokenProcessPool:
        raise InfraError(
            "a worker process was killed (out of memory?); run the same command with fewer "
            "--workers to go on"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _gpu_names(num_gpus: int) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(number) for number in range(num_gpus)])[
        :num_gpus
    ]


def _start_worker(started: Synchronized[int], num_workers: int, gpus: Sequence[str]) -> None:
    """Take this process's share of the machine, before torch is imported."""
    end_with_parent()
    with started.get_lock():
        number = started.value
        started.value += 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_workers)))
