"""Notice that a process which runs episodes has died: verl would wait for its episodes for ever."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from seg_common.errors import InfraError

_PERIOD_S = 2.0


class WorkerHealth:
    """Asks Ray actors for signs of life, now and then, without waiting for an answer."""

    def __init__(self, period_s: float = _PERIOD_S) -> None:
        self._period_s = period_s
        # Not 0: the monotonic clock may count from boot, and a young machine's is below the period.
        self._asked_at_s: float | None = None
        self._asked: dict[Any, Any] = {}

    def check(self, workers: Sequence[Any]) -> None:
        """Look at the answers that have come.

        Raises:
            InfraError: a worker is dead.
        """
        now_s = time.monotonic()
        if self._asked_at_s is not None and now_s - self._asked_at_s < self._period_s:
            return
        self._asked_at_s = now_s
        waiting = {id(worker) for worker in self._asked.values()}
        self._asked |= {
            worker.__ray_ready__.remote(): worker for worker in workers if id(worker) not in waiting
        }
        if not self._asked:
            return
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for answer in answered:
            del self._asked[answer]
            try:
                ray.get(answer)
            except RayActorError as error:
                reason = next(line for line in str(error).splitlines() if line.strip())
                raise InfraError(
                    "a process that runs episodes has died, perhaps for want of memory "
                    f"({reason.strip()}); the same command goes on "
                    "from the last checkpoint"
                ) from error
