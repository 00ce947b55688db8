"""Torch modules and checkpoints of ours. Leaves import torch; this package does not."""

from pathlib import Path

COLD_START = Path(__file__).with_name("weights") / "mini_coldstart"
"""Checkpoint folder of the tiny Qwen3-VL that comes with the package: it can play the mini benchmark, and is where experiments start."""
