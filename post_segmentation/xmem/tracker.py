"""Follow masks through a video with XMem: one sweep forward, one backward, every frame encoded once
a sweep for all groups together.

Groups know nothing of each other: each has a memory and a clock of its own and shares only what
depends on the image alone, so its masks are those of a run of its own.

Axes: S seeds, O objects, H rows, W columns.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from post_segmentation.prompts import check_frame_size
from post_segmentation.propagator import FrameMasks
from post_segmentation.xmem.memory import MemorySettings
from post_segmentation.xmem.network import STRIDE, XMem
from post_segmentation.xmem.object_group import ObjectGroup
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FramePosition, FrameSource

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""Of RGB from 0 to 1 over ImageNet, where the training of both encoders began."""
IMAGE_STD = (0.229, 0.224, 0.225)

Found = dict[int, NDArray[np.bool_]]
"""Masks (H, W) on one frame, by the index of their seed."""


@dataclass(frozen=True, slots=True)
class Seed:
    """The mask of one object on the frame where it is known.

    Attributes:
        mask_HW: in the video's size.
        group_id: objects of the same group compete for pixels.
    """

    position: FramePosition
    mask_HW: NDArray[np.bool_]
    group_id: int = 0


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """How a video is put before the network.

    Attributes:
        short_side_px: frames are resized so that their short side is this long; None for no
            resizing.
        bf16: compute in bfloat16 where that is safe; memory stays float32.
    """

    short_side_px: int | None = 480
    bf16: bool = False
    memory: MemorySettings = field(default_factory=MemorySettings)


class XMemTracker:
    """Seeds in, masks of every frame out."""

    def __init__(self, network: XMem, settings: TrackerSettings) -> None:
        """Take a network that is ready for inference; it may be shared."""
        self.network = network
        self.settings = settings
        self.device = next(network.parameters()).device

    def track(self, frames: FrameSource, seeds: Sequence[Seed]) -> Iterator[FrameMasks]:
        """Yield the masks of every seed on every frame once: from its own frame on in the sweep
        forward, the others in the sweep backward.

        On its own frame a seed's mask stays as given; an empty seed stays empty everywhere.

        Raises:
            UsageError: a frame cannot be decoded or is not of the video's size.
        """
        if not seeds:
            return
        positions = [seed.position for seed in seeds]
        for position, found in self._sweep(frames, seeds, range(min(positions), len(frames))):
            yield _collect(
                position,
                [index for index, key in enumerate(positions) if key <= position],
                found,
                frames.size,
            )
        for position, found in self._sweep(frames, seeds, range(max(positions), -1, -1)):
            due = [index for index, key in enumerate(positions) if key > position]
            if due:
                yield _collect(position, due, found, frames.size)

    def _sweep(
        self, frames: FrameSource, seeds: Sequence[Seed], positions: range
    ) -> Iterator[tuple[FramePosition, Found]]:
        """Yield the masks of all objects that have joined, frame by frame."""
        fit = Fit.of(frames.size, self.settings.short_side_px)
        groups: dict[int, ObjectGroup] = {}
        for position in map(FramePosition, positions):
            joining = {
                index: seed
                for index, seed in enumerate(seeds)
                if seed.position == position and seed.mask_HW.any()
            }
            found = {index: seed.mask_HW for index, seed in joining.items()}
            is_last = position == positions[-1]
            # A first object on the last frame has nobody to segment it with and nothing to be
            # remembered for.
            if groups or (joining and not is_last):
                image = frames.read(position)
                check_frame_size(image.size, frames, position)
                for seed in joining.values():
                    groups.setdefault(
                        seed.group_id, ObjectGroup(self.network, self.settings.memory)
                    )
                found = self._step(image, fit, groups, joining, remember=not is_last) | found
            yield position, found

    @torch.inference_mode()
    def _step(
        self,
        image: Image.Image,
        fit: Fit,
        groups: Mapping[int, ObjectGroup],
        joining: Mapping[int, Seed],
        *,
        remember: bool,
    ) -> Found:
        """Segment one frame for all groups."""
        found: Found = {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            code = self.network.encode_image(fit.image(image).to(self.device))
            for name, group in groups.items():
                own = {
                    index: seed.mask_HW for index, seed in joining.items() if seed.group_id == name
                }
                masks_OHW = fit.masks(list(own.values())).to(self.device) if own else None
                probs_OHW = group.step(code, tuple(own), masks_OHW, remember=remember)
                found |= zip(group.objects, fit.restored(probs_OHW), strict=True)
        return found


@dataclass(frozen=True, slots=True)
class Fit:
    """How frames get to the size that the network sees, and masks back: resized, then padded on all
    sides to multiples of `STRIDE`.
    """

    video: ImageSize
    resized: ImageSize
    padding_ltrb: tuple[int, int, int, int]

    @classmethod
    def of(cls, video: ImageSize, short_side_px: int | None) -> Fit:
        """Plan for a video's size."""
        short_px = min(video)
        scaled = [side * (short_side_px or short_px) // short_px for side in video]
        left, top = (-side % STRIDE // 2 for side in scaled)
        right, bottom = (
            -side % STRIDE - before for side, before in zip(scaled, (left, top), strict=True)
        )
        return cls(video, ImageSize(*scaled), (left, top, right, bottom))

    def image(self, image: Image.Image) -> Tensor:
        """Return the normalised frame (1, 3, H, W)."""
        rgb_HW3 = torch.from_numpy(np.array(image.convert("RGB"), np.float32))
        scaled_13HW = (
            (rgb_HW3 / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
        ).permute(2, 0, 1)[None]
        if self.resized != self.video:
            scaled_13HW = F.interpolate(
                scaled_13HW, self.resized[::-1], mode="bilinear", align_corners=False
            )
        return self._padded(scaled_13HW)

    def masks(self, masks: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Return masks (O, H, W) that do not overlap, since a smaller object lies on a larger one;
        the smallest is not lost in resizing.
        """
        full_1OHW = torch.from_numpy(np.stack(masks).astype(np.float32))[None]
        size = self.resized[::-1]
        masks_OHW = F.interpolate(full_1OHW, size, mode="nearest")[0]
        lost_O = ~masks_OHW.flatten(1).any(1)
        if lost_O.any():
            masks_OHW[lost_O] = F.adaptive_max_pool2d(full_1OHW[0, lost_O], size)
        owner_HW = torch.full(size, -1)
        for index in masks_OHW.sum((1, 2)).argsort(descending=True, stable=True).tolist():
            owner_HW[masks_OHW[index] > 0] = index
        return self._padded(
            torch.stack([(owner_HW == index).float() for index in range(len(masks))])
        )

    def restored(self, probs_OHW: Tensor) -> NDArray[np.bool_]:
        """Return masks (O, H, W) in the video's size from probabilities whose first is the
        background's.
        """
        left, top, _, _ = self.padding_ltrb
        inner_OHW = probs_OHW[
            :, top : top + self.resized.height_px, left : left + self.resized.width_px
        ]
        if self.resized != self.video:
            inner_OHW = F.interpolate(
                inner_OHW[None], self.video[::-1], mode="bilinear", align_corners=False
            )[0]
        winner_HW = inner_OHW.argmax(0).cpu().numpy()
        return np.stack([winner_HW == index for index in range(1, len(probs_OHW))])

    def _padded(self, map_HW: Tensor) -> Tensor:
        left, top, right, bottom = self.padding_ltrb
        return F.pad(map_HW, (left, right, top, bottom))


def _collect(
    position: FramePosition, objects: Sequence[int], found: Found, size: ImageSize
) -> FrameMasks:
    """Return the masks of these objects, empty where nothing was found."""
    nothing_HW = np.zeros((size.height_px, size.width_px), np.bool_)
    return FrameMasks(
        position, np.stack([found.get(index, nothing_HW) for index in objects]), tuple(objects)
    )
