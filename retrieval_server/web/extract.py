"""The main text of a page, taken out in a process of its own.

A page can be written so that its reading takes minutes (measured: 25 s for 900 KB of attributes),
and the libraries that read it are partly C. The process gets no secrets, little memory and a few
seconds; one that needs more is killed and replaced.

Over its pipes go frames of a length in four bytes and as many bytes: a page in, its text out.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from typing import BinaryIO

from retrieval_server.web.fetch import Fetched, FetchFailedError

MAX_TEXT_CHARS = 200_000
_LENGTH = struct.Struct(">I")
_START_S = 60.0
_MEMORY_BYTES = 1 << 30
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


class Extractor:
    """Hands pages to worker processes, started when first needed. Belongs to one event loop;
    `close` it.
    """

    def __init__(self, *, num_workers: int = 1, timeout_s: float = 5.0) -> None:
        """Prepare; `timeout_s` is for one page."""
        self._timeout_s = timeout_s
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for _ in range(num_workers):
            self._idle.put_nowait(_Worker())

    async def text_of(self, page: Fetched) -> str:
        """Return the main text of a page, paragraphs on lines of their own; empty where there is
        none.

        Raises:
            FetchFailedError: it could not be read in time.
        """
        if page.media_type == "text/plain":
            return _decoded(page)[:MAX_TEXT_CHARS]
        worker = await self._idle.get()
        try:
            return await worker.read(
                _decoded(page).encode("utf-8") if page.charset else page.content, self._timeout_s
            )
        finally:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        """End the workers that are idle; the others end with the pipes to this process."""
        while not self._idle.empty():
            await self._idle.get_nowait().stop()


class _Worker:
    """One process; started again after it was killed."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def read(self, page: bytes, timeout_s: float) -> str:
        try:
            process = self._process or await self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            async with asyncio.timeout(timeout_s):
                process.stdin.write(_LENGTH.pack(len(page)) + page)
                await process.stdin.drain()
                (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
                return (await process.stdout.readexactly(length)).decode("utf-8")
        except (TimeoutError, OSError, asyncio.IncompleteReadError, UnicodeDecodeError) as error:
            await self.stop()
            raise FetchFailedError(
                f"its text could not be taken out ({type(error).__name__})"
            ) from None
        except asyncio.CancelledError:
            # It is in the middle of a frame: of no use to the next page.
            await self.stop()
            raise

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "retrieval_server.web.extract",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**environment, "OMP_NUM_THREADS": "1"},
            limit=8 * MAX_TEXT_CHARS,
            start_new_session=True,  # Ctrl-C is for the server; its end closes our pipe.
        )
        assert process.stdout is not None
        async with asyncio.timeout(_START_S):
            # An empty frame once everything is imported.
            await process.stdout.readexactly(_LENGTH.size)
        return process


def _decoded(page: Fetched) -> str:
    try:
        return page.content.decode(page.charset or "utf-8", "replace")
    except LookupError:
        return page.content.decode("utf-8", "replace")


def main() -> None:
    """Serve one parent until it closes the pipe."""
    import logging
    import resource

    from trafilatura import extract

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _send(sink, b"")
    while header := source.read(_LENGTH.size):
        page = source.read(_LENGTH.unpack(header)[0])
        text = extract(
            page,
            include_comments=False,
            include_tables=True,
            include_links=False,
            include_images=False,
            fast=True,
        )
        _send(sink, (text or "")[:MAX_TEXT_CHARS].encode("utf-8", "replace"))


def _send(sink: BinaryIO, content: bytes) -> None:
    sink.write(_LENGTH.pack(len(content)) + content)
    sink.flush()


if __name__ == "__main__":
    main()
