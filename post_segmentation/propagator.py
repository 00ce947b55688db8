"""What every mask back-end can do: take a video, take prompts, give masks of every frame. Axes: N
objects, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from post_segmentation.weights import (
    DEFAULT_SAM2,
    DEFAULT_SEC,
    find_checkpoint,
    find_model_folder,
    fingerprint,
)
from seg_common.errors import UsageError
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.video import FramePosition, FrameSource


class Backend(StrEnum):
    """The back-ends, by the names the command line knows."""

    SAM2 = "sam2"
    SAM2_NATIVE = "sam2-native"
    SAM2_XMEM = "sam2+xmem"
    SEC = "sec"
    GRABCUT = "grabcut"
    BOX = "box"


@dataclass(frozen=True, slots=True)
class Engine:
    """A back-end with all it takes to make one, in this process or another.

    Attributes:
        weights: folder or hub id (`sam2`, `sam2+xmem`, `sec`) or checkpoint file (`sam2-native`);
            None is the back-end's own default.
        xmem_weights: checkpoint file, for `sam2+xmem`.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N; for back-ends with weights.
        window: frames whose features may wait in main memory for the second sweep, for `sam2`.
    """

    backend: Backend
    weights: str | None = None
    xmem_weights: str | None = None
    device: str = "auto"
    window: int = 32

    @property
    def is_network(self) -> bool:
        """Tell whether it runs on torch, and on a GPU where there is one."""
        return self.backend not in (Backend.GRABCUT, Backend.BOX)

    @property
    def shares_work(self) -> bool:
        """Tell whether many questions about one video cost less together."""
        return self.backend in (Backend.SAM2, Backend.SAM2_XMEM)


@dataclass(frozen=True, slots=True)
class MaskPrompt:
    """Everything known of one object: box, inside points and outside points, all on one frame.

    Attributes:
        position: of that frame in the video.
        box: in pixels of the video; None where only points are known.
        question: which prediction the object belongs to; objects of one may compete for pixels,
            those of different ones never meet.
    """

    position: FramePosition
    box: PixelBox | None
    points: tuple[PixelPoint, ...] = ()
    negative_points: tuple[PixelPoint, ...] = ()
    question: int = 0


class FrameMasks(NamedTuple):
    """Masks of objects on one frame."""

    position: FramePosition
    masks_NHW: NDArray[np.bool_]
    """In the video's size."""
    objects: tuple[int, ...] | None = None
    """Which ones, by the number of their prompt; None: all, in the order of the prompts."""


class Propagator(Protocol):
    """Turn prompts on one video into masks. One video at a time; several rounds of prompts and
    propagation on it.
    """

    def open(self, frames: FrameSource) -> None:
        """Take a video; nothing of an earlier one is kept."""
        ...

    def prompt(self, prompt: MaskPrompt) -> None:
        """Add one object for the next `propagate`; box and all points of an object go in this one
        call.
        """
        ...

    def propagate(self) -> Iterator[FrameMasks]:
        """Follow the prompted objects in both directions and forget the prompts.

        Every object is told of every frame exactly once, in any order; objects of one key frame
        always come together.
        """
        ...

    def close(self) -> None:
        """Free the video and all memory held for it."""
        ...


def identify(engine: Engine) -> str:
    """Return what tells this engine's masks from another's: the back-end and its weights,
    downloaded if need be.

    Raises:
        UsageError: weights are missing, or given to a back-end that takes none.
    """
    backend = engine.backend
    if not engine.is_network and (engine.weights or engine.xmem_weights):
        raise UsageError(
            f"back-end {backend} takes no weights; leave --weights out or choose --backend sam2"
        )
    if engine.xmem_weights and backend is not Backend.SAM2_XMEM:
        raise UsageError(f"back-end {backend} takes no --xmem-weights; choose --backend sam2+xmem")
    parts: list[str] = [backend]
    if backend in (Backend.SAM2, Backend.SAM2_XMEM):
        parts.append(fingerprint(find_model_folder(engine.weights or DEFAULT_SAM2)))
    elif backend is Backend.SEC:
        parts.append(fingerprint(find_model_folder(engine.weights or DEFAULT_SEC)))
    elif backend is Backend.SAM2_NATIVE:
        parts.append(
            fingerprint(
                find_checkpoint(_required(engine.weights, "--weights sam2.1_hiera_large.pt"))
            )
        )
    if backend is Backend.SAM2_XMEM:
        parts.append(
            fingerprint(find_checkpoint(_required(engine.xmem_weights, "--xmem-weights XMem.pth")))
        )
    return " ".join(parts)


def make_propagator(engine: Engine) -> Propagator:
    """Make a back-end; only the chosen one's libraries are imported.

    Raises:
        UsageError: weights, device or a library are missing.
    """
    match engine.backend:
        case Backend.BOX:
            from post_segmentation.backends.box import BoxFill

            return BoxFill()
        case Backend.GRABCUT:
            from post_segmentation.backends.grabcut import GrabCutFlow

            return GrabCutFlow()
        case _:
            return _make_network(engine)


def _make_network(engine: Engine) -> Propagator:
    try:
        match engine.backend:
            case Backend.SAM2_XMEM:
                from post_segmentation.backends.sam2_xmem import load_sam2_xmem

                xmem_weights = _required(engine.xmem_weights, "--xmem-weights XMem.pth")
                return load_sam2_xmem(engine.weights or DEFAULT_SAM2, xmem_weights, engine.device)
            case Backend.SAM2_NATIVE:
                from post_segmentation.backends.sam2_native import load_sam2_native

                return load_sam2_native(
                    _required(engine.weights, "--weights sam2.1_hiera_large.pt"), engine.device
                )
            case Backend.SEC:
                from post_segmentation.backends.sec import load_sec

                return load_sec(engine.weights or DEFAULT_SEC, engine.device)
            case _:
                from post_segmentation.backends.sam2 import load_sam2

                return load_sam2(engine.weights or DEFAULT_SAM2, engine.device, engine.window)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (
            "torch",
            "transformers",
            "safetensors",
            "huggingface_hub",
        ):
            raise
        raise UsageError(
            f"back-end {engine.backend} needs {error.name}: pip install 'seg-research[sam2]', or use --backend grabcut"
        ) from None


def _required(value: str | None, example: str) -> str:
    if value is None:
        raise UsageError(f"this back-end needs its checkpoint file, for instance {example}")
    return value
