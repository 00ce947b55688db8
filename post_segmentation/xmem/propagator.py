"""Any back-end on the key frames, XMem for all other frames: it needs one good mask and little
memory, however long the video.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from post_segmentation.propagator import FrameMasks, MaskPrompt, Propagator
from post_segmentation.sam2_propagator import load_sam2
from post_segmentation.torch_device import find_device
from post_segmentation.weights import find_checkpoint
from post_segmentation.xmem.tracker import Seed, TrackerSettings, XMemTracker
from post_segmentation.xmem.weights import load_xmem
from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FramePosition, FrameSource


def load_sam2_xmem(sam2_weights: str, xmem_weights: str, device: str) -> XMemPropagator:
    """Load SAM 2 for the key frames and XMem for the others; bf16 on a GPU.

    Args:
        sam2_weights: folder of a transformers model of the SAM 2 family, or id of one on the hub.
        xmem_weights: path of the published `XMem.pth` or a variant of it.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        UsageError: weights are missing or do not fit, or the device does not exist.
    """
    where = find_device(device)
    network = load_xmem(find_checkpoint(xmem_weights), where)
    return XMemPropagator(
        load_sam2(sam2_weights, device, window=0),
        XMemTracker(network, TrackerSettings(bf16=where.type == "cuda")),
    )


class XMemPropagator:
    """Prompts become masks on their own frames, by the key-frame back-end; XMem carries those masks
    both ways.
    """

    def __init__(self, keyframe: Propagator, tracker: XMemTracker) -> None:
        """Hold no video yet.

        Args:
            keyframe: is only ever shown single frames.
            tracker: carries its masks on.
        """
        self._keyframe = keyframe
        self._tracker = tracker
        self._frames: FrameSource | None = None
        self._prompts: list[MaskPrompt] = []

    def open(self, frames: FrameSource) -> None:
        self._frames, self._prompts = frames, []

    def prompt(self, prompt: MaskPrompt) -> None:
        self._prompts.append(prompt)

    def propagate(self) -> Iterator[FrameMasks]:
        assert self._frames is not None, "propagate before open"
        prompts, self._prompts = self._prompts, []
        try:
            yield from self._tracker.track(self._frames, self._seeds(self._frames, prompts))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise UsageError(
                "the GPU is out of memory; use a GPU that nothing else runs on, or --backend sam2"
            ) from None

    def close(self) -> None:
        self._keyframe.close()
        self._frames, self._prompts = None, []

    def _seeds(self, frames: FrameSource, prompts: Sequence[MaskPrompt]) -> list[Seed]:
        """Make the masks of all prompts that are none yet, frame by frame."""
        by_position: defaultdict[FramePosition, list[int]] = defaultdict(list)
        seeds: dict[int, Seed] = {}
        for index, prompt in enumerate(prompts):
            if prompt.mask_HW is None:
                by_position[prompt.position].append(index)
            else:
                seeds[index] = Seed(prompt.position, prompt.mask_HW, prompt.group_id)
        for position, indices in by_position.items():
            self._keyframe.open(OneFrame(frames, position))
            for index in indices:
                self._keyframe.prompt(replace(prompts[index], position=FramePosition(0)))
            (only,) = self._keyframe.propagate()
            self._keyframe.close()
            for index, mask_HW in zip(indices, only.masks_NHW, strict=True):
                seeds[index] = Seed(position, mask_HW, prompts[index].group_id)
        return [seeds[index] for index in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class OneFrame:
    """One frame of a video as a video."""

    video: FrameSource
    position: FramePosition

    @property
    def names(self) -> tuple[str, ...]:
        """Its stem alone."""
        return (self.video.names[self.position],)

    @property
    def size(self) -> ImageSize:
        """Size of the whole video's frames, in pixels."""
        return self.video.size

    def __len__(self) -> int:
        return 1

    def read(self, position: FramePosition) -> Image.Image:
        """Decode the frame as RGB."""
        assert position == 0, f"position {position} of a single frame"
        return self.video.read(self.position)
