"""The device that a network runs on, by the name a user gave."""

from __future__ import annotations

import torch

from seg_common.errors import UsageError


def find_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is a GPU if there is one.

    Raises:
        UsageError: this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: expected auto, cpu, cuda or cuda:N") from None
    if found.type not in ("cpu", "cuda") or (
        found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(
            f"--device {device}: this machine has the CPU and {torch.cuda.device_count()} GPUs"
            " that torch can use"
        )
    return found
