"""Start, run and stop the search server: in this process (`run`), or as a child of a job that needs one (`running_server`).

Nothing heavy is imported with this module, so that `--help` and the parent of a server stay light.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_server import DEFAULT_ENCODER
from seg_research.core.errors import InfraError, UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

DEFAULT_PORT = 8100
EXIT_USAGE = 2
_BACKLOG = 1024
_STOP_S = 10.0
_KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none sends its request into one that is just being closed."""
_POLL_S = 0.05
_LISTENING = re.compile(r"listening on (http://\S+)")

ProgressOf = Callable[[str, int], Callable[[int], None]]
"""(what is being embedded, how many) -> a function told how many more are done."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What to serve and where.

    Attributes:
        port: 0 picks a free one.
        encoder: folder or name of a sentence-transformers model.
        top_k: number of hits where a request names none.
        num_threads: torch threads for embedding.
        cache: folder where embeddings of corpora are kept between starts.
        allow_remote: permit an address that other machines can reach; there is no authentication.
    """

    text: Path
    images: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    encoder: str = DEFAULT_ENCODER
    top_k: int = 3
    num_threads: int = 1
    cache: Path | None = None
    allow_remote: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option per field of `ServerSettings`."""
    default = ServerSettings(text=Path())
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="CORPUS.jsonl", help='passages: {"id", "contents": "title\\ntext"} a line')
    add("--images", type=Path, metavar="CORPUS.jsonl", help='pictures: {"id", "name", "filename", "image_path"?} a line')
    add("--host", default=default.host, help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=default.port, help="0 picks a free one (default: %(default)s)")
    add("--encoder", default=default.encoder, metavar="PATH_OR_NAME", help="sentence-transformers model (default: %(default)s)")
    add("--top-k", type=int, default=default.top_k, metavar="K", help="hits where a request names no number (default: %(default)s)")
    add("--threads", type=int, default=default.num_threads, metavar="N", help="CPU threads for embedding (default: %(default)s)")
    add("--cache", type=Path, metavar="DIR", help="keep embeddings of corpora here between starts")
    add("--allow-remote", action="store_true", help="permit an address that other machines reach; there is no authentication")


def settings_from(options: argparse.Namespace) -> ServerSettings:
    """Build settings from parsed options.

    Raises:
        UsageError: a number is out of range, or the address is not a loopback one and that was not allowed.
    """
    from retrieval_server.schemas import MAX_TOP_K

    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: expected 0..65535")
    if not 1 <= options.top_k <= MAX_TOP_K:
        raise UsageError(f"--top-k {options.top_k}: expected 1..{MAX_TOP_K}")
    if options.threads < 1:
        raise UsageError(f"--threads {options.threads}: expected at least 1")
    if not options.allow_remote and not _is_loopback(options.host):
        raise UsageError(
            f"--host {options.host}: other machines could reach this address and the server has no authentication; "
            "use 127.0.0.1, or add --allow-remote if the network is trusted"
        )
    return ServerSettings(
        text=options.text,
        images=options.images,
        host=options.host,
        port=options.port,
        encoder=options.encoder,
        top_k=options.top_k,
        num_threads=options.threads,
        cache=options.cache,
        allow_remote=options.allow_remote,
    )


def run(settings: ServerSettings, *, progress_of: ProgressOf | None = None) -> None:
    """Serve until SIGTERM or SIGINT; tell on one line where, once everything is loaded.

    Raises:
        UsageError: the port is taken, a corpus is broken, or a package or model is missing.
    """
    listener = _bind(settings.host, settings.port)
    try:
        app, summary = _load(settings, progress_of)
        import uvicorn

        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)

        def leave(*_: object) -> None:
            server.should_exit = True

        # uvicorn has handlers of its own while it runs, but raises the signal again once it has shut down; and one may come before.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)
        sys.stdout.write(f"listening on {_url(listener)} · {summary}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])
    finally:
        listener.close()


def _load(settings: ServerSettings, progress_of: ProgressOf | None) -> tuple[FastAPI, str]:
    try:
        from retrieval_server.app import create_app
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed; install it with: pip install 'seg-research[retrieval]'") from None
    from retrieval_server.collections import load_image_corpus, load_text_corpus
    from retrieval_server.encoder import load_encoder
    from retrieval_server.index import build_index

    collections = [load_text_corpus(settings.text)]
    if settings.images is not None:
        collections.append(load_image_corpus(settings.images))
    encoder = load_encoder(settings.encoder, num_threads=settings.num_threads)
    indexes = {}
    for collection in collections:
        progress = progress_of(f"embedding {collection.path.name}", len(collection.entries)) if progress_of else None
        indexes[collection.kind] = build_index(collection, encoder, cache=settings.cache, progress=progress)
    parts = [f"{len(collections[0].entries)} passages"]
    parts += [f"{len(images.entries)} images ({images.num_pictures} with a picture)" for images in collections[1:]]
    return create_app(indexes, encoder, default_top_k=settings.top_k), " · ".join([*parts, f"encoder {encoder.name}"])


def _bind(host: str, port: int) -> socket.socket:
    """Listen before loading, so that a taken port is told at once and an early client waits instead of failing."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = "stop the program that uses this port, or choose another one with --port (0 picks a free one)"
            raise UsageError(f"port {port} of {host} is already in use; {advice}") from None
        raise UsageError(f"cannot listen on {host} port {port} ({error}); choose another --host or --port") from None
    # asyncio does this only for sockets that it made itself; without it a reply waits 40 ms for a delayed ACK. Accepted sockets inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def stop_when_stdin_closes() -> None:
    """Shut this process down when its parent dies, however it dies: the parent holds the other end of stdin."""

    def watch() -> None:
        # Not sys.stdin.read(): a thread inside it holds a lock that a process about to exit needs.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def running_server(
    text: Path,
    images: Path | None = None,
    *,
    port: int = 0,
    encoder: str = DEFAULT_ENCODER,
    num_threads: int = 1,
    cache: Path | None = None,
    start_deadline_s: float = 180.0,
) -> Generator[str]:
    """Start a server as a child process, yield its base URL once it answers, and stop it afterwards.

    The server also stops when this process dies.

    Raises:
        UsageError: it could not start for a reason that the user must remove (its own message).
        InfraError: it crashed while starting, or did not answer within the deadline.
    """
    command = [sys.executable, "-m", "retrieval_server", "--stop-with-stdin", "--text", str(text), "--port", str(port)]
    command += ["--encoder", encoder, "--threads", str(num_threads)]
    command += [] if images is None else ["--images", str(images)]
    command += [] if cache is None else ["--cache", str(cache)]
    with tempfile.TemporaryDirectory(prefix="seg-research-serve-") as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        # Files and not pipes: nobody has to read them for the server to go on.
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True)
        try:
            yield _wait_until_ready(process, stdout, stderr, start_deadline_s)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], stdout: Path, stderr: Path, deadline_s: float) -> str:
    give_up = time.monotonic() + deadline_s
    while time.monotonic() < give_up:
        if process.poll() is not None:
            lines = stderr.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}, no message"]
            kind = UsageError if process.returncode == EXIT_USAGE else InfraError
            raise kind(f"the search server did not start: {lines[-1]}")
        said = _LISTENING.search(stdout.read_text(errors="replace"))
        if said and _answers(said[1]):
            return said[1]
        time.sleep(_POLL_S)
    raise InfraError(f"the search server did not answer within {deadline_s:g} s of its start")


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
