"""Pictures go to verl's server by reference: their pixels enter Ray's object store once, not with
every turn of every trajectory.

verl sends a turn with all pictures of the conversation so far, which is some megabytes to copy here
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
"""Of decoded pictures kept in a server's process, at four bytes a pixel: six frames of 448 px take
5 MB, a key frame of 864 px 3 MB.
"""


class LentPicture(Image.Image):
    """The same picture; what differs is what its pickle holds."""

    def __init__(self, image: Image.Image) -> None:
        """Share the pixels of a picture that nobody may change from now on."""
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


_lent: WeakValueDictionary[int, LentPicture] = WeakValueDictionary()
_decoded: ByteCache[Image.Image] = ByteCache(MAX_BYTES)


def lend(image: Image.Image) -> LentPicture:
    """Return the picture to send for this one; the same as long as one trajectory of this process
    keeps it.
    """
    # It keeps the picture, so that no other has its id.
    found = _lent.get(id(image))
    if found is None:
        found = _lent[id(image)] = LentPicture(image)
    return found


def _received(reference: Any) -> Image.Image:
    return _decoded.get(
        reference.binary(),
        lambda: Image.fromarray(ray.get(reference)),
        lambda image: 4 * image.width * image.height,
    )
