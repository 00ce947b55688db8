"""Patches of verl 0.9.1, each with the reason and what tells when it can go (log: verl/UPGRADING.md)."""

from __future__ import annotations

from datetime import timedelta

import verl.utils.distributed as distributed


def accept_cpu_process_group() -> None:
    """Give the process group one backend for the CPU.

    verl asks for "cpu:gloo,{device}:{backend}", which on the CPU platform names the CPU twice; torch refuses that. Can go when the contract
    test `test_verl_still_names_the_cpu_twice` fails. Must run before the engine workers import the function.
    """
    original = distributed.initialize_global_process_group_ray
    if getattr(original, "_seg_research", False):
        return

    def initialize(timeout_second: float | timedelta | None = None, backend: str | None = None) -> object:
        return original(timeout_second, backend or "cpu:gloo")

    initialize._seg_research = True  # type: ignore[attr-defined]
    distributed.initialize_global_process_group_ray = initialize
