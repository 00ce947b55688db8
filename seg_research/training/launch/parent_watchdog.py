"""Tie a process to the one that started it: a launcher that was killed must not leave a trainer
behind that nobody watches.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

LAUNCHER_VARIABLE = "SEG_RESEARCH_LAUNCHER"
"""Process id of the launcher."""

THREADS_VARIABLE = "SEG_RESEARCH_TORCH_THREADS"
"""Threads of torch in each process of a trainer on a CPU; the launcher says how many."""

_POLL_S = 0.5
_GRACE_S = 10.0

logger = logging.getLogger(__name__)


def end_with_launcher() -> None:
    """If the launcher is this process's parent, end this process and its group soon after the
    launcher has gone, however it went.

    Other processes that inherited the variable, such as Ray's workers, are left alone: they end
    with the driver.
    """
    if is_started_by_launcher():
        threading.Thread(
            target=_watch, args=(os.getppid(),), daemon=True, name="parent watchdog"
        ).start()


def is_started_by_launcher() -> bool:
    """Tell whether this is the process that the launcher started itself."""
    return os.environ.get(LAUNCHER_VARIABLE) == str(os.getppid())


def launcher_has_gone() -> bool:
    """Tell, in any process that it started on this machine, whether the launcher has ended. Where
    nobody left its number, as on the other nodes of a cluster, it is taken to be there.
    """
    import psutil

    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is None:
        return False
    try:
        return psutil.Process(int(launcher)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_POLL_S)
    logger.warning("the launcher has gone; ending")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)
