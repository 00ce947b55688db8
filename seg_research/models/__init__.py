"""Torch modules and checkpoints of ours. Leaves import torch; this package does not."""
