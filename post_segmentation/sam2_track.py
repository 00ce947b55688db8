"""What SAM 2 computes of one frame, and what is remembered of one object.

Axes: C channels, L cells of the coarsest feature map, M tokens of one remembered frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Vision(NamedTuple):
    """Features of one frame; maps run from fine to coarse, each as (cells, 1, C)."""

    maps: tuple[Tensor, ...]
    encoding_L1C: Tensor
    """Position encoding of the coarsest map."""

    def to(self, device: torch.device) -> Vision:
        """Return a copy on another device."""
        return Vision(tuple(level.to(device) for level in self.maps), self.encoding_L1C.to(device))


@dataclass(slots=True)
class Track:
    """What is remembered of one object.

    Attributes:
        key: position of the frame it was prompted on.
        key_memory_M1C: that frame and its mask, remembered for good.
        key_pointer_11C: what the object is, in one vector, as seen there.
        memories: the same of the frames near the present one, by position; those beside the key
            frame stay for the sweep the other way.
        pointers: likewise, over more frames.
    """

    key: int
    key_memory_M1C: Tensor
    key_pointer_11C: Tensor
    memories: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    pointers: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


def within_reach(
    remembered: dict[int, Tensor], key: int, position: int, step: int, reach: int
) -> dict[int, Tensor]:
    """Drop what neither the frames to come nor, after a forward sweep, the first frames of the
    backward one look at.
    """
    return {
        p: tensor
        for p, tensor in remembered.items()
        if (position - p) * step < reach or (step > 0 and p - key < reach)
    }
