"""Start, run and stop the search server: in this process (`run`), or as a child of a job that needs
one (`running_server`).

Nothing heavy is imported with this module, so that `--help` and the parent of a server stay light.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_server import DEFAULT_ENCODER
from retrieval_server.options import ServerSettings
from retrieval_server.progress import StartProgress, no_progress
from seg_common.errors import InfraError, UsageError

if TYPE_CHECKING:
    from retrieval_server.factory import BuiltApp

EXIT_USAGE = 2
_BACKLOG = 1024
_STOP_S = 10.0
_KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none sends its request into one that is just
being closed.
"""
_POLL_S = 0.05
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$", re.IGNORECASE)
"""Environment variables whose values must not reach a log."""
_LISTENING = re.compile(r"listening on (http://\S+)")


def run(settings: ServerSettings, *, progress: StartProgress = no_progress) -> None:
    """Serve until SIGTERM or SIGINT; tell on one line where, once everything is loaded.

    Raises:
        UsageError: the port is taken, a corpus is broken, or a package or model is missing.
    """
    _log(settings)
    listener = _bind(settings.host, settings.port)
    try:
        app, summary = _load(settings, progress)
        import uvicorn

        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)

        def leave(*_: object) -> None:
            server.should_exit = True

        # uvicorn has handlers of its own while it runs, but raises the signal again once it has
        # shut down; and one may come before.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)
        sys.stdout.write(f"listening on {_url(listener)} · {summary}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])
    finally:
        listener.close()


def _load(settings: ServerSettings, progress: StartProgress) -> BuiltApp:
    try:
        from retrieval_server.factory import build_app
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed; install it with: pip install 'seg-research[retrieval]'"
        ) from None
    return build_app(settings, progress)


def _log(settings: ServerSettings) -> None:
    from retrieval_server.logs import REQUESTS, LogFormat, log_to_stderr

    log_to_stderr(
        LogFormat(settings.log or LogFormat.TEXT),
        [value for name, value in os.environ.items() if _SECRET_NAME.search(name)],
    )
    logging.getLogger(REQUESTS).setLevel(logging.INFO if settings.log else logging.WARNING)


def _bind(host: str, port: int) -> socket.socket:
    """Listen before loading, so that a taken port is told at once and an early client waits instead
    of failing.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = (
                "stop the program that uses this port, or choose another one with --port (0 picks a"
                " free one)"
            )
            raise UsageError(f"port {port} of {host} is already in use; {advice}") from None
        raise UsageError(
            f"cannot listen on {host} port {port} ({error}); choose another --host or --port"
        ) from None
    # asyncio does this only for sockets that it made itself; without it a reply waits 40 ms for a
    # delayed ACK. Accepted sockets inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def stop_when_stdin_closes() -> None:
    """Shut this process down when its parent dies, however it dies: the parent holds the other end
    of stdin.
    """

    def watch() -> None:
        # Not sys.stdin.read(): a thread inside it holds a lock that a process about to exit needs.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def running_server(
    text: Path | None,
    images: Path | None = None,
    *,
    port: int = 0,
    encoder: str = DEFAULT_ENCODER,
    num_threads: int = 1,
    cache: Path | None = None,
    options: Sequence[str] = (),
    start_deadline_s: float = 180.0,
) -> Generator[str]:
    """Start a server as a child process, yield its base URL once it answers, and stop it
    afterwards.

    The server also stops when this process dies. Indexes are kept in the folder `cache`; `options`
    are more options of the command.

    Raises:
        UsageError: it could not start for a reason that the user must remove (its own message).
        InfraError: it crashed while starting, or did not answer within the deadline.
    """
    command = [sys.executable, "-m", "retrieval_server", "--stop-with-stdin", "--port", str(port)]
    command += [] if text is None else ["--text", str(text)]
    command += ["--encoder", encoder, "--threads", str(num_threads)]
    command += [] if images is None else ["--images", str(images)]
    command += [] if cache is None else ["--index-cache", str(cache)]
    command += options
    with tempfile.TemporaryDirectory(prefix="seg-research-serve-") as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        # Files and not pipes: nobody has to read them for the server to go on.
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
            )
        try:
            yield _wait_until_ready(process, stdout, stderr, start_deadline_s)
        finally:
            _stop(process)


def _wait_until_ready(
    process: subprocess.Popen[bytes], stdout: Path, stderr: Path, deadline_s: float
) -> str:
    give_up = time.monotonic() + deadline_s
    while time.monotonic() < give_up:
        if process.poll() is not None:
            lines = stderr.read_text(errors="replace").strip().splitlines() or [
                f"exit code {process.returncode}, no message"
            ]
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
