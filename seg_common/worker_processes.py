"""What every pool of worker processes has in common."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """End this worker process when the process that started it has gone, even by SIGKILL: a worker
    that is left behind would write into the folders of a later run.

    Call it at the start of a worker; elsewhere it does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()  # returns when the operating system has closed the parent's end of a pipe
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


def start_worker() -> None:
    """Begin a worker of a pool: it ends with its parent, and leaves Ctrl-C to it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
