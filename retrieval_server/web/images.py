"""Images from the web: downloaded within limits, decoded by few decoders, encoded again as small
JPEGs.
"""

from __future__ import annotations

import asyncio
import io
import logging

from retrieval_server.jpeg import jpeg_of
from retrieval_server.web.fetch import IMAGE_TYPES, Fetcher, FetchFailedError
from retrieval_server.web.url_policy import FetchRefusedError

MAX_IMAGE_BYTES = 8 << 20
MAX_IMAGE_PIXELS = 24_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_DECODED_AT_ONCE = 2
"""An image at the limit takes 100 MB while it is decoded."""
_logger = logging.getLogger(__name__)


class ImageLoader:
    """Downloads images for all clients. Belongs to one event loop."""

    def __init__(self, fetcher: Fetcher) -> None:
        """Download through a fetcher."""
        self._fetcher = fetcher
        self._decoding = asyncio.Semaphore(_DECODED_AT_ONCE)

    async def load(self, address: str) -> bytes | None:
        """Return a small JPEG; None where the image may not be had, cannot be had, or is none."""
        try:
            fetched = await self._fetcher.fetch(
                address, accept=IMAGE_TYPES, max_bytes=MAX_IMAGE_BYTES
            )
            async with self._decoding:
                return await asyncio.to_thread(
                    jpeg_of,
                    io.BytesIO(fetched.content),
                    formats=_FORMATS,
                    max_pixels=MAX_IMAGE_PIXELS,
                )
        except (FetchRefusedError, FetchFailedError, ValueError) as error:
            _logger.info("image %.200r: not had (%s)", address, error)
            return None
