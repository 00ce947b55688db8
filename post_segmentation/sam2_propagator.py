"""SAM 2 through transformers: SAM 2, SAM 2.1, EdgeTAM and the tracker of SAM 3. Axes: N objects, H
rows, W columns, C channels.

All questions about a video go through it together: one sweep forward from the earliest key frame,
one backward from the latest, each frame encoded once a sweep for all of them. An object joins at
its own key frame. Frames between the first and the last key frame are met by both sweeps; the
features of up to `window` of them wait in main memory, so that the second sweep need not compute
them again. Frames are read ahead by one, and no frame is held beyond its turn: memory does not grow
with the length of the video.

transformers' own processor needs torchvision, which has no CPU build in some registries: what it
does (resize, scale, normalise; prompts to the model's input size; masks to the video's size) is
done here, with the numbers the model folder states.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from post_segmentation.prompts import check_frame_size
from post_segmentation.propagator import FrameMasks, MaskPrompt
from post_segmentation.sam2_track import Track, Vision
from post_segmentation.sam2_tracker import Sam2Tracker
from post_segmentation.torch_device import find_device
from post_segmentation.weights import find_model_folder
from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.video import FramePosition, FrameSource

OBJECTS_PER_BATCH = {"cuda": 16, "cpu": 1}
"""On the CPU a batch gains nothing, and one by one each question gets the very bits it gets alone.
"""

MODEL_CLASSES = {
    "sam2": "Sam2VideoModel",
    "sam2_video": "Sam2VideoModel",
    "edgetam_video": "EdgeTamVideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
    "sam3_video": "Sam3TrackerVideoModel",
}
"""By `model_type` of the model folder's config.json."""

_INSIDE, _OUTSIDE, _BOX_CORNERS = 1, 0, (2, 3)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_sam2(weights: str, device: str, window: int) -> Sam2Propagator:
    """Load a model of the SAM 2 family.

    Args:
        weights: folder of a transformers model, or id of one on the hub.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        window: frames whose features may wait in main memory.

    Raises:
        UsageError: the weights are not there, are of another family or broken, or the device does
            not exist.
    """
    where = find_device(device)
    folder = find_model_folder(weights)
    model = load_model(folder).to(where)
    return Sam2Propagator(model, window, *_read_normalisation(folder))


def load_model(folder: Path) -> Any:
    """Load the model of a folder in fp32 and evaluation mode.

    Raises:
        UsageError: it is not of the SAM 2 family, or its files are broken.
    """
    transformers.utils.logging.disable_progress_bar()  # It would write into ours.
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        name = MODEL_CLASSES.get(config.model_type)
        if name is None:
            raise UsageError(
                f"{folder}: a model of type {config.model_type!r};"
                f" expected one of {', '.join(sorted(MODEL_CLASSES))}"
            )
        model_class = getattr(transformers, name)
        if config.model_type == model_class.config_class.model_type:
            _mend_config(config)
            return model_class.from_pretrained(folder, config=config, dtype=torch.float32).eval()
        return model_class.from_pretrained(folder, dtype=torch.float32).eval()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{folder}: cannot load this model ({' '.join(str(error).split())[:200]})"
        ) from None


def _mend_config(config: Any) -> None:
    """Give the mask decoder its own kind of config: transformers 5.10 reads it back as a prompt
    encoder's and loses its defaults.
    """
    right = type(config).sub_configs["mask_decoder_config"]
    if not isinstance(config.mask_decoder_config, right):
        fields = {
            k: v
            for k, v in config.mask_decoder_config.to_dict().items()
            if k in right().to_dict() and k != "model_type"
        }
        config.mask_decoder_config = right(**fields)


def _read_normalisation(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation per channel, as the model folder states them."""
    for name in (
        "video_preprocessor_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text())
            found = found.get("video_processor") or found.get("image_processor") or found
            if "image_mean" in found and "image_std" in found:
                return found["image_mean"], found["image_std"]
    return _IMAGENET_MEAN, _IMAGENET_STD


class Sam2Propagator:
    """Masks by a model of the SAM 2 family."""

    def __init__(
        self,
        model: Any,
        window: int,
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
        objects_per_batch: int | None = None,
    ) -> None:
        """Take a model that is in evaluation mode and on its device; `objects_per_batch` None is
        what suits the device.
        """
        self._model, self._device, self._window = model, model.device, window
        self._tracker = Sam2Tracker(
            model, objects_per_batch or OBJECTS_PER_BATCH[model.device.type]
        )
        self._mean_C11, self._std_C11 = (
            torch.tensor(values, device=self._device)[:, None, None] for values in (mean, std)
        )
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
        try:
            yield from self._sweep_both_ways(self._frames, prompts)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise UsageError(
                "the GPU is out of memory; use a smaller model, or a GPU that nothing else runs on"
            ) from None

    def _sweep_both_ways(
        self, frames: FrameSource, prompts: Sequence[MaskPrompt]
    ) -> Iterator[FrameMasks]:
        joining: defaultdict[int, list[int]] = defaultdict(list)
        for number, prompt in enumerate(prompts):
            joining[prompt.position].append(number)
        first, last = min(joining), max(joining)
        tracks: dict[int, Track] = {}
        waiting: dict[int, Vision] = {}
        for position, vision in self._encode(frames, range(first, len(frames)), {}):
            if position < last and len(waiting) < self._window:
                waiting[position] = vision.to(torch.device("cpu"))
            followed = dict(tracks)
            logits = (
                [self._tracker.follow(vision, position, list(followed.values()), 1, len(frames))]
                if followed
                else []
            )
            for number in joining[position]:
                tracks[number], logits_1HW = self._begin(
                    prompts[number], vision, position, frames.size
                )
                logits.append(logits_1HW)
            yield self._masks(
                position, torch.cat(logits), frames.size, (*followed, *joining[position])
            )
        for position, vision in self._encode(frames, range(last - 1, -1, -1), waiting):
            followed = {number: track for number, track in tracks.items() if track.key > position}
            logits_NHW = self._tracker.follow(
                vision, position, list(followed.values()), -1, len(frames)
            )
            yield self._masks(position, logits_NHW, frames.size, tuple(followed))

    def _encode(
        self, frames: FrameSource, positions: Sequence[int], waiting: dict[int, Vision]
    ) -> Iterator[tuple[int, Vision]]:
        """Give the features of frames in turn, taken from `waiting` where they are there; the next
        frame is decoded meanwhile.
        """
        to_read = [position for position in positions if position not in waiting]
        with ThreadPoolExecutor(1) as reader:
            coming = deque(reader.submit(_read, frames, position) for position in to_read[:1])
            upcoming = iter(to_read[1:])
            for position in positions:
                if position in waiting:
                    yield position, waiting.pop(position).to(self._device)
                    continue
                image_HWC = coming.popleft().result()
                coming.extend(
                    reader.submit(_read, frames, following) for following in islice(upcoming, 1)
                )
                yield position, self._tracker.encode(self._prepare(image_HWC))

    def _prepare(self, image_HWC: NDArray[np.uint8]) -> Tensor:
        """Return the frame as the model takes it: (1, C, side, side), normalised."""
        side = self._model.image_size
        image_1CHW = torch.from_numpy(image_HWC).to(self._device).permute(2, 0, 1)[None].float()
        resized = functional.interpolate(
            image_1CHW, size=(side, side), mode="bilinear", antialias=True
        )
        return (resized.round().clamp(0, 255) / 255 - self._mean_C11) / self._std_C11

    def _begin(
        self, prompt: MaskPrompt, vision: Vision, position: int, size: ImageSize
    ) -> tuple[Track, Tensor]:
        if prompt.mask_HW is None:
            return self._tracker.begin(vision, position, *self._place(prompt, size))
        side = self._model.image_size
        mask_11HW = torch.from_numpy(prompt.mask_HW.astype(np.float32))[None, None]
        resized = functional.interpolate(
            mask_11HW.to(self._device), size=(side, side), mode="bilinear", antialias=True
        )
        return self._tracker.begin_with_mask(vision, position, (resized >= 0.5).float())

    def _place(self, prompt: MaskPrompt, size: ImageSize) -> tuple[Tensor, Tensor]:
        """Return the box's corners and all points (P, 2) in pixels of the model's input, and what
        each is (P).
        """
        box = (
            []
            if prompt.box is None
            else [(prompt.box.x1, prompt.box.y1), (prompt.box.x2, prompt.box.y2)]
        )
        points = [(point.x, point.y) for point in (*prompt.points, *prompt.negative_points)]
        labels = [
            *_BOX_CORNERS[: len(box)],
            *[_INSIDE] * len(prompt.points),
            *[_OUTSIDE] * len(prompt.negative_points),
        ]
        scale = torch.tensor(
            [self._model.image_size / size.width_px, self._model.image_size / size.height_px]
        )
        return (torch.tensor([*box, *points]) * scale).to(self._device), torch.tensor(
            labels, dtype=torch.int32, device=self._device
        )

    def _masks(
        self, position: int, logits_NHW: Tensor, size: ImageSize, objects: tuple[int, ...]
    ) -> FrameMasks:
        shape = (size.height_px, size.width_px)
        large_NHW = functional.interpolate(
            logits_NHW[:, None].float(), size=shape, mode="bilinear", align_corners=False
        )[:, 0]
        return FrameMasks(FramePosition(position), (large_NHW > 0).cpu().numpy(), objects)


def _read(frames: FrameSource, position: int) -> NDArray[np.uint8]:
    image = frames.read(FramePosition(position))
    check_frame_size(image.size, frames, FramePosition(position))
    return np.array(image)
