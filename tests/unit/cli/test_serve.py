import json
import os
import signal
import subprocess
import sys

import pytest

from seg_research.cli.main import main


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text_corpus.jsonl"
    path.write_text(json.dumps({"id": 0, "contents": "Velmora\nA harbour town."}) + "\n")
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: other machines could reach this address"),
        (["--host", "192.168.1.5"], "have clients show a token: --token-env NAME"),
        (
            ["--host", "0.0.0.0", "--token-env", "NO_SUCH_TOKEN"],
            "--token-env: NO_SUCH_TOKEN is not set; make a token: ",
        ),
        (["--token-env", "SHORT_TOKEN"], "SHORT_TOKEN has 6 characters, expected at least 16"),
        (["--max-waiting", "0"], "--max-waiting 0: expected at least 1"),
        (
            ["--images-index", "i"],
            "--images-index: the index holds no texts; name its corpus with --images",
        ),
        (["--port", "0", "--text-index", "nowhere"], "nowhere: no such file"),
        (["--host", "example.com"], "use 127.0.0.1"),
        (["--port", "70000"], "--port 70000: expected 0..65535"),
        (["--top-k", "0"], "--top-k 0: expected 1..100"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
        (["--port", "0", "--text", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--port", "0", "--images", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(corpus, capsys, monkeypatch, options, said):
    pytest.importorskip("fastapi")
    monkeypatch.setenv("SHORT_TOKEN", "123456")
    assert main(["serve", "--text", str(corpus), *options]) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown
    assert "\n" not in shown


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_addresses_are_allowed_and_others_with_a_token(corpus, host, monkeypatch):
    import argparse

    from retrieval_server.options import add_arguments, settings_from

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert settings_from(parser.parse_args(["--text", str(corpus), "--host", host])).host == host
    monkeypatch.setenv("SEARCH_TOKEN", "correct horse battery")
    guarded = settings_from(
        parser.parse_args(
            ["--text", str(corpus), "--host", "0.0.0.0", "--token-env", "SEARCH_TOKEN"]
        )
    )
    assert (guarded.host, guarded.token()) == ("0.0.0.0", "correct horse battery")
    assert "correct horse" not in repr(guarded)


def test_nothing_to_serve_is_one_line(capsys):
    pytest.importorskip("fastapi")
    assert main(["serve", "--port", "0"]) == 2
    assert (
        "name a corpus (--text CORPUS.jsonl, --images CORPUS.jsonl) or a web --provider"
        in capsys.readouterr().err
    )


def test_a_taken_port_is_one_line(corpus, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--text", str(corpus), "--port", str(port)]) == 2
    shown = capsys.readouterr().err.strip()
    assert f"port {port} of 127.0.0.1 is already in use" in shown
    assert "--port" in shown
    assert "\n" not in shown


def test_it_tells_where_it_listens_and_stops_on_a_signal(corpus):
    pytest.importorskip("bm25s")
    command = [
        sys.executable,
        "-m",
        "seg_research.cli.main",
        "serve",
        "--text",
        str(corpus),
        "--port",
        "0",
        "--retriever",
        "bm25",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    assert first_line.startswith("listening on http://127.0.0.1:")
    assert "1 passages · bm25" in first_line
    assert (process.returncode, rest, errors) == (0, "", "")


def test_json_logs_name_requests_and_hide_secrets(corpus):
    pytest.importorskip("bm25s")
    import httpx

    token = "correct-horse-battery"
    command = [
        sys.executable,
        "-m",
        "seg_research.cli.main",
        "serve",
        "--text",
        str(corpus),
        "--port",
        "0",
        "--retriever",
        "bm25",
    ]
    command += ["--token-env", "SEARCH_TOKEN", "--log", "json"]
    environment = os.environ | {"SEARCH_TOKEN": token}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        headers = {"Authorization": f"Bearer {token}", "X-Request-Id": f"id-{token}"}
        found = httpx.post(
            f"{url}/search", json={"query": f"town {token}"}, headers=headers, trust_env=False
        )
        refused = httpx.post(f"{url}/search", json={"query": "town"}, trust_env=False)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert [found.status_code, refused.status_code] == [200, 401]
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [(line["message"], line["status"]) for line in lines] == [
        ("POST /search", 200),
        ("POST /search", 401),
    ]
    assert lines[0]["request_id"] == "id-***"
    assert token not in errors
    assert "town" not in errors
