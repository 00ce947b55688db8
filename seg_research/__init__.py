"""Reinforcement learning for video segmentation that can look things up."""

from seg_common import __version__

__all__ = ["__version__"]
