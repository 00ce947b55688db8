"""Rewards: named, pure terms over a transcript and the ground truth, put together by a rubric."""
