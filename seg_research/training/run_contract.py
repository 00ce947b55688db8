"""What the launcher and verl's processes of a run agree on: names, and how a run is stopped."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from seg_common.errors import UsageError
from seg_common.files import write_atomic

AGENT_NAME = "seg_research"
"""Under which verl finds our agent loop."""

STOP_FILE = "stopped.txt"
"""In the run folder: holds the reason when a guard ends the run; the launcher watches for it."""

TRAJECTORIES = "trajectories"
"""In the run folder: the log of episodes, one file a worker process."""

VALIDATION_KEY = "validation"
"""Tells rows of `data.val_files` from those that are trained on, in verl's rows and in the log;
verl does not tell agent loops.
"""


def stop_run(config: DictConfig, reason: str) -> UsageError:
    """Leave the reason for the launcher, which stops the run; return the error to raise here."""
    write_atomic(Path(config.seg.run_dir) / STOP_FILE, reason + "\n")
    return UsageError(reason)
