"""The `mini` benchmark: procedurally drawn videos and a made-up body of knowledge, in the on-disk
layout of OK-VOS.

A seed and a number fix a world (a video, four questions, the passages that answer them); nothing
else does. Names bind to sprites at random, so no question but the in-video ones can be answered
without a search.
"""

from pathlib import Path

COLD_START = Path(__file__).with_name("weights") / "mini_coldstart"
"""Checkpoint folder of the tiny Qwen3-VL that comes with the package: it reads, searches and points
on the mini benchmark, and is where experiments start.
"""
