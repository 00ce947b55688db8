"""Run a function over many items on a Ray cluster: one task an item, and the loss of one takes no
other with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from seg_common.errors import InfraError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ray_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    on_lost: Callable[[Item, str], Result],
    address: str | None = None,
    num_gpus: float = 0,
    num_tasks: int | None = None,
) -> Iterator[Result]:
    """Give results as they come.

    Args:
        function: picklable with its items and results; its files must be where the nodes of the
            cluster see them.
        items: what to run it on.
        on_lost: stands in for the result of an item whose task died (out of memory, a node that
            went away), given the reason.
        address: of a running cluster, `auto` for the one this machine belongs to; None starts one
            here.
        num_gpus: of each task; ignored where the cluster has no GPU at all.
        num_tasks: at a time; None: as many as the cluster has room for. Only for a cluster started
            here.

    Raises:
        UsageError: the function raised it: nothing else would fare better.
        InfraError: there is no cluster at the address.
    """
    own = not ray.is_initialized()
    if own:
        try:
            ray.init(
                address=address,
                num_cpus=None if address else num_tasks,
                include_dashboard=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InfraError(
                f"no Ray cluster at {address or 'this machine'}: "
                f"{' '.join(str(error).split())[:160]}"
            ) from None
    try:
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        remote = ray.remote(num_cpus=1, num_gpus=num_gpus if has_gpus else 0, max_retries=0)(
            function_of
        )
        shared = ray.put(function)
        running = {remote.remote(shared, item): item for item in items}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield _result(done, running.pop(done), on_lost)
    finally:
        if own:
            ray.shutdown()


def function_of(function: Callable[[Item], Result], item: Item) -> Result:
    """Call the function; Ray wants one with a name, and a partial has none."""
    return function(item)


def _result(
    done: ray.ObjectRef[Result], item: Item, on_lost: Callable[[Item, str], Result]
) -> Result:
    try:
        return ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, UsageError):
            raise UsageError(str(error.cause)) from None
        raise
    except RayError as error:
        return on_lost(item, f"its Ray task was lost: {' '.join(str(error).split())[:200]}")
