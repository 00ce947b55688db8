"""Reinforcement learning for video segmentation that can look things up."""

__version__ = "0.1.0"
