"""Images are turned into pixels for the model once, however many trajectories show them; rollouts
of one prompt share its frames.

verl asks its processor twice for each trajectory: with every message, only to count tokens, and at
the end for what the trainer needs. The first needs no pixels, the second would stop the event loop,
and with it all other episodes of the process, for a quarter of a second.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature

from seg_research.core.byte_cache import ByteCache

MAX_BYTES = 512 << 20
"""Of pixels kept in a process. Six frames of 448 px take 29 MB, a key frame of 864 px 18 MB; the
eight prompts of a worker fit in.
"""
MAX_TOKEN_BYTES = 32 << 20
"""Of tokens kept in a process; an opening takes some 50 KB."""

_GRID = "image_grid_thw"
_PLAIN = {"return_tensors": "pt"}
"""What verl asks for; whoever asks for more is served by the image processor itself."""


class SharedPixels:
    """Stands in a processor where its image processor was, which still does the work."""

    def __init__(self, inner: Any, max_bytes: int = MAX_BYTES) -> None:
        """Wrap an image processor that treats each image by itself, as those of the Qwen family
        do.
        """
        self._inner = inner
        self._made: ByteCache[tuple[Image.Image, BatchFeature]] = ByteCache(max_bytes)
        self._grids: dict[tuple[int, int], torch.Tensor] = {}
        self.counter: TokenCounter | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # copying and pickling look for methods before there is anything to delegate to
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        """Return what the image processor returns for these images, joined from what is known of
        each.
        """
        if options != _PLAIN:
            return self._inner(images, **options)
        each = [self._pixels(image) for image in images]
        return BatchFeature({name: torch.cat([one[name] for one in each]) for name in each[0]})

    def prepare(self, images: Sequence[Image.Image]) -> None:
        """Compute, in the calling thread, what the next call for these images then only has to
        join.
        """
        for image in images:
            self._pixels(image)

    def _pixels(self, image: Image.Image) -> BatchFeature:
        # Kept together: as long as the image lives, no other has its id.
        return self._made.get(
            id(image),
            lambda: (image, self._inner([image], **_PLAIN)),
            lambda made: _num_bytes(made[1]),
        )[1]

    def count(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        """Return of what the image processor returns only how many patches the images have; it
        depends on their sizes alone.
        """
        if options != _PLAIN:
            return self._inner(images, **options)
        for size in {image.size for image in images} - self._grids.keys():
            self._grids[size] = self._inner([Image.new("RGB", size)], **_PLAIN)[_GRID]
        return BatchFeature({_GRID: torch.cat([self._grids[image.size] for image in images])})


class _Counter:
    """The same image processor for those who need no pixels."""

    def __init__(self, shared: SharedPixels) -> None:
        self._shared = shared

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._shared, name)

    def __call__(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        return self._shared.count(images, **options)


def share_pixels(processor: Any) -> SharedPixels:
    """Let all users of this processor share the pixels of an image; once is enough."""
    if not isinstance(processor.image_processor, SharedPixels):
        processor.image_processor = SharedPixels(processor.image_processor)
        _check_in_lists(processor)
    return processor.image_processor


def _check_in_lists(processor: Any) -> None:
    """Let the processor count placeholders in a list: in a tensor, as it does by itself, this takes
    ten times as long as all the rest.
    """
    check = processor._check_special_mm_tokens

    def check_lists(text: list[str], text_inputs: Mapping[str, Any], modalities: list[str]) -> None:
        check(
            text,
            {"input_ids": [torch.as_tensor(ids).tolist() for ids in text_inputs["input_ids"]]},
            modalities,
        )

    processor._check_special_mm_tokens = check_lists


class TokenCounter:
    """The same processor for those who want tokens: without pixels, and each text once, as tokens
    depend on texts and image sizes alone.

    Rollouts of one prompt share its opening, and of the texts that verl encodes to append an
    observation most are always the same.
    """

    def __init__(self, processor: Any) -> None:
        """Leave the processor as it is."""
        self._processor = copy.copy(processor)
        self._processor.image_processor = _Counter(share_pixels(processor))
        self._known: ByteCache[BatchFeature] = ByteCache(MAX_TOKEN_BYTES)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._processor, name)

    def __call__(
        self, text: Sequence[str], images: Sequence[Image.Image] | None = None, **options: Any
    ) -> BatchFeature:
        """Return what the processor returns, without pixels."""
        if options != {**_PLAIN, "videos": None} or isinstance(text, str):
            return self._processor(text=text, images=images, **options)
        key = (*text, *(image.size for image in images or ()))
        made = self._known.get(
            key, lambda: self._processor(text=text, images=images, **options), _num_bytes
        )
        return BatchFeature(dict(made))


# verl names a class of transformers for whatever is called like one
def token_counter(processor: Any) -> Any:
    """Return the one counter of a processor."""
    shared = share_pixels(processor)
    if shared.counter is None:
        shared.counter = TokenCounter(processor)
    return shared.counter


def _num_bytes(made: BatchFeature) -> int:
    return sum(tensor.nbytes for tensor in made.values())
