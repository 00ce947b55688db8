"""A server on this machine that says exactly the bytes a test wants, at the pace a test wants, and
remembers what it was asked.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

import pytest


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self):
        return json.loads(self.body)


def reply(status=200, body=b"", **headers):
    """Raw bytes of one response; dicts and lists become JSON."""
    if isinstance(body, dict | list):
        body, headers = json.dumps(body).encode(), {"content-type": "application/json", **headers}
    if isinstance(body, str):
        body = body.encode()
    fields = {"content-length": str(len(body)), "connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


@dataclass
class LocalServer:
    """`answer` is called with what was asked; it returns bytes, or an async iterator of bytes that
    are sent one by one.
    """

    answer: object = None
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    most_at_once: int = 0
    _now: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def replies(self, *raw):
        """Play replies in order, the last one for ever."""
        left = list(raw)
        self.answer = lambda asked: left.pop(0) if len(left) > 1 else left[0]

    async def handle(self, reader, writer):
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, target, _ = first.split(" ")
            asked = Asked(method, target, headers, body)
            self.asked.append(asked)
            said = self.answer(asked)
            if asyncio.iscoroutine(said):
                said = await said
            if isinstance(said, bytes):
                writer.write(said)
            else:
                async for chunk in said:
                    writer.write(chunk)
                    await writer.drain()
            await writer.drain()
        self._now -= 1
        writer.close()


@pytest.fixture
async def local_server():
    server = LocalServer()
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()
