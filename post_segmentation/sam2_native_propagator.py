"""SAM 2 through Meta's own `sam2` package, for its `.pt` checkpoints. Axes: N objects, H rows, W
columns.

The package reads its videos itself, from a folder of JPEG files, and holds all their frames in
memory. Objects of one key frame share a session; for the next key frame it begins anew, because
what it knows of the first ones would reach the others.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import os
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from post_segmentation.prompts import check_frame_size
from post_segmentation.propagator import FrameMasks, MaskPrompt
from post_segmentation.torch_device import find_device
from post_segmentation.weights import find_checkpoint
from seg_common.errors import UsageError
from seg_research.core.video import FrameFolder, FramePosition, FrameSource

CONFIGS = {
    f"{family}_hiera_{size}": f"configs/{family}/{family}_hiera_{short}.yaml"
    for family in ("sam2.1", "sam2")
    for size, short in (("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l"))
}
"""By a part of the checkpoint's file name; Meta's checkpoints do not say themselves which
architecture they are of.
"""

_FRAME_BYTES = 3 * 1024 * 1024 * 4
_LINKED_SUFFIXES = {".jpg", ".jpeg"}


def load_sam2_native(checkpoint: str, device: str) -> Sam2NativePropagator:
    """Load a checkpoint with Meta's package.

    Raises:
        UsageError: the package, the checkpoint or the device is missing, or the checkpoint's name
            or content does not fit.
    """
    path = find_checkpoint(checkpoint)
    config = next((config for stem, config in CONFIGS.items() if stem in path.name), None)
    if config is None:
        raise UsageError(
            f"{path.name}: the name does not tell the architecture; rename or link the file"
            f" so that it contains one of {', '.join(CONFIGS)}"
        )
    where = find_device(device)
    from sam2.build_sam import build_sam2_video_predictor  # pyright: ignore[reportMissingImports]

    try:
        predictor = build_sam2_video_predictor(config, str(path), device=str(where))
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"{path}: not a checkpoint of {config}"
            f" ({' '.join(str(error).split())[:160] or type(error).__name__})"
        ) from None
    return Sam2NativePropagator(predictor, where)


class Sam2NativePropagator:
    """Masks by a video predictor with the interface of Meta's."""

    objects_per_session: int | None = None
    """None: all of one key frame."""

    def __init__(self, predictor: Any, device: torch.device) -> None:
        """Take a predictor that is on the device."""
        self._predictor, self._device = predictor, device
        self._frames: FrameSource | None = None
        self._prompts: list[MaskPrompt] = []

    def open(self, frames: FrameSource) -> None:
        self._frames, self._prompts = frames, []

    def prompt(self, prompt: MaskPrompt) -> None:
        self._prompts.append(prompt)

    def close(self) -> None:
        self._frames, self._prompts = None, []

    def propagate(self) -> Iterator[FrameMasks]:
        assert self._frames is not None, "propagate before open"
        prompts, self._prompts = self._prompts, []
        _check_memory(self._frames)
        by_position: defaultdict[FramePosition, list[int]] = defaultdict(list)
        for number, prompt in enumerate(prompts):
            by_position[prompt.position].append(number)
        with tempfile.TemporaryDirectory(prefix="seg-research-") as folder:
            _lay_out(self._frames, Path(folder))
            try:
                with self._precision():
                    state = self._predictor.init_state(video_path=folder, offload_video_to_cpu=True)
                for position, numbers in by_position.items():
                    yield from self._follow(
                        state, position, numbers, [prompts[number] for number in numbers]
                    )
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise UsageError(
                    "the GPU is out of memory; use a smaller model,"
                    " or --backend sam2, which holds fewer frames"
                ) from None

    def _follow(
        self,
        state: Any,
        start: FramePosition,
        numbers: Sequence[int],
        prompts: Sequence[MaskPrompt],
    ) -> Iterator[FrameMasks]:
        """Follow objects of one key frame, as many at a time as a session takes; their masks come
        together.
        """
        size = self.objects_per_session or len(numbers)
        sweeps = [
            self._session(state, start, prompts[first : first + size])
            for first in range(0, len(prompts), size)
        ]
        if len(sweeps) == 1:
            for position, masks_NHW in sweeps[0]:
                yield FrameMasks(position, masks_NHW, tuple(numbers))
            return
        # Sessions cannot be interleaved: the masks of the earlier ones wait, a bit a pixel.
        waiting: defaultdict[FramePosition, list[NDArray[np.uint8]]] = defaultdict(list)
        for sweep in sweeps[:-1]:
            for position, masks_NHW in sweep:
                waiting[position].append(np.packbits(masks_NHW, axis=-1))
        for position, masks_NHW in sweeps[-1]:
            width = masks_NHW.shape[-1]
            earlier = [
                np.unpackbits(packed, axis=-1, count=width).astype(bool)
                for packed in waiting.pop(position)
            ]
            yield FrameMasks(position, np.concatenate([*earlier, masks_NHW]), tuple(numbers))

    def _session(
        self, state: Any, start: FramePosition, prompts: Sequence[MaskPrompt]
    ) -> Iterator[tuple[FramePosition, NDArray[np.bool_]]]:
        predictor = self._predictor
        with self._precision():
            predictor.reset_state(state)
            logits_N1HW: Any = None
            for number, prompt in enumerate(prompts):
                if prompt.mask_HW is not None:
                    _, _, logits_N1HW = predictor.add_new_mask(
                        state, int(start), number, prompt.mask_HW
                    )
                else:
                    _, _, logits_N1HW = predictor.add_new_points_or_box(
                        state, int(start), number, **_describe(prompt)
                    )
        key_NHW = _binary(logits_N1HW)
        for reverse in (False, True):
            sweep = self._sweep(state, start, reverse, key_NHW)
            while (found := self._next(sweep)) is not None:
                position, logits_N1HW = found
                if not (reverse and position == start):
                    yield FramePosition(position), _binary(logits_N1HW)

    def _next(self, sweep: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
        # The precision is set for each step: a generator that holds it would leak it into whoever
        # it yields to.
        with self._precision():
            return next(sweep, None)

    def _sweep(
        self, state: Any, start: FramePosition, reverse: bool, key_NHW: NDArray[np.bool_]
    ) -> Iterator[tuple[int, Any]]:
        """Give (position, logits) from the key frame on; `key_NHW` are its masks."""
        for position, _, logits_N1HW in self._predictor.propagate_in_video(
            state, start_frame_idx=int(start), reverse=reverse
        ):
            yield position, logits_N1HW

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(
            self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"
        )


def _describe(prompt: MaskPrompt) -> dict[str, NDArray[Any]]:
    """Return box and points as the predictor takes them, in pixels of the video, all in one
    call.
    """
    described: dict[str, NDArray[Any]] = {}
    points = [(point.x, point.y) for point in (*prompt.points, *prompt.negative_points)]
    if prompt.box is not None:
        described["box"] = np.array(
            [prompt.box.x1, prompt.box.y1, prompt.box.x2, prompt.box.y2], np.float32
        )
    if points:
        described["points"] = np.array(points, np.float32)
        described["labels"] = np.array(
            [1] * len(prompt.points) + [0] * len(prompt.negative_points), np.int32
        )
    return described


def _binary(logits_N1HW: Any) -> NDArray[np.bool_]:
    return (logits_N1HW[:, 0] > 0).cpu().numpy()


def _lay_out(frames: FrameSource, folder: Path) -> None:
    """Fill a folder with the frames as `<position>.jpg`: links where they are JPEG files, without
    loss (the readers look inside) where not.

    Raises:
        UsageError: a frame cannot be read or has another size; the package itself would stop with a
            traceback.
    """
    for position in map(FramePosition, range(len(frames))):
        image = frames.read(position)
        check_frame_size(image.size, frames, position)
        path = folder / f"{position:06d}.jpg"
        if (
            isinstance(frames, FrameFolder)
            and frames.files[position].suffix.lower() in _LINKED_SUFFIXES
        ):
            path.symlink_to(frames.files[position].resolve())
        else:
            image.save(path, format="PNG", compress_level=1)


def _check_memory(frames: FrameSource) -> None:
    needed, free = (
        len(frames) * _FRAME_BYTES,
        os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )
    if needed > free:
        raise UsageError(
            f"this back-end holds all {len(frames)} frames in memory, {needed / 1e9:.0f} GB,"
            f" and {free / 1e9:.0f} GB are free; use --backend sam2, which does not"
        )
