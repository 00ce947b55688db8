"""Images go to verl's server by reference: their pixels enter Ray's object store once, not with
every turn of every trajectory.

verl sends a turn with all images of the conversation so far, which is some megabytes to copy here
and to decode there. Ray moves what a reference stands for to the server's node when it is first
needed there, and frees it when the last trajectory that shows it has ended.
"""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import ray
from PIL import Image

from seg_research.core.byte_cache import ByteCache

MAX_BYTES = 512 << 20
"""Of decoded images kept in a server's process, at four bytes a pixel: six frames of 448 px take
5 MB, a key frame of 864 px 3 MB.
"""


class RayImage(Image.Image):
    """The same image; what differs is what its pickle holds."""

    def __init__(self, image: Image.Image) -> None:
        """Share the pixels of an image that nobody may change from now on."""
        super().__init__()
        self.__dict__ |= image.__dict__
        self._lender = image
        # Not while it is pickled: Ray would take its arguments for something else then, and never
        # free what they hold (2.60).
        self._reference: Any = ray.put(np.asarray(image)) if ray.is_initialized() else None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Hand out a reference; where Ray does not run, there is nobody who could follow it."""
        if self._reference is None:
            return copy.copy, (self._lender,)
        return _received, (self._reference,)


class ImageLender:
    """Makes the images that trajectories send; those that show one image share it."""

    def __init__(self) -> None:
        """Start with nothing lent."""
        self._lent: WeakValueDictionary[int, RayImage] = WeakValueDictionary()

    def lend(self, image: Image.Image) -> RayImage:
        """Return the image to send for this one; the same as long as one trajectory keeps it."""
        # It keeps the image, so that no other has its id.
        found = self._lent.get(id(image))
        if found is None:
            found = self._lent[id(image)] = RayImage(image)
        return found

    def __len__(self) -> int:
        """Count the images that some trajectory keeps."""
        return len(self._lent)


# Of the process, as a pickle has no other place to look in.
_decoded: ByteCache[Image.Image] = ByteCache(MAX_BYTES)


def _received(reference: Any) -> Image.Image:
    return _decoded.get(
        reference.binary(),
        lambda: Image.fromarray(ray.get(reference)),
        lambda image: 4 * image.width * image.height,
    )
