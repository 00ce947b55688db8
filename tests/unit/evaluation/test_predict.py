"""`predictions.jsonl` after kills, outages and half-written lines equals that of a run that nothing
happened to.
"""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from retrieval_server.schemas import Health, Hit, Problem, SearchResponse
from seg_common.errors import InfraError, UsageError
from seg_research.cli.main import EXIT_FAILED, EXIT_USAGE, main
from seg_research.data.rows import read_samples
from seg_research.episode.tool import text_observation
from seg_research.episode.transcript import Outcome
from seg_research.evaluation.predict import PredictionRun, fingerprint, predict
from seg_research.mini.tiny_settings import tiny_settings
from seg_research.policies.scripted import ScriptedPolicy, expert_script
from seg_research.recipes.registry import build_recipe
from seg_research.recipes.seg_research.actions import Search
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.tools.show_frame import ShowFrameTool

IDENTITY = {"policy": "expert", "seed": 0}


class CountedSearch:
    """Answers until it has answered often enough; then the service is down."""

    name = "search"

    def __init__(self, limit: int = 10**6):
        self.limit, self.num_calls = limit, 0

    def accepts(self, action):
        return isinstance(action, Search)

    async def run(self, action, sample):
        self.num_calls += 1
        if self.num_calls > self.limit:
            raise InfraError("search server http://127.0.0.1:1: no answer")
        return text_observation(
            f"<information>{action.query}</information>", "text_search", Outcome.OK
        )


@pytest.fixture(scope="module")
def samples(mini):
    return read_samples(mini.parquet("test"))


def expert_run(search=None, **changes) -> PredictionRun:
    settings = tiny_settings()
    given = {"identity": IDENTITY, "num_rollouts": 2, "group_size": 5, **changes}
    tools = (search or CountedSearch(), ShowFrameTool(SegResearch().texts.show_frame, 96))
    return PredictionRun(
        build_recipe(settings),
        tools,
        lambda group: ScriptedPolicy(expert_script(build_recipe(settings))),
        **given,
    )


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def keys(path) -> list[tuple[str, int]]:
    return [(row["id"], row["sample_idx"]) for row in lines(path)]


async def test_every_rollout_of_every_sample_is_a_line_in_the_order_of_the_data(samples, tmp_path):
    out, settled = tmp_path / "p.jsonl", []
    count = await predict(expert_run(), samples, out, settled.append)
    assert (count.total, count.written, count.failed) == (24, 24, 0)
    assert settled == [5, 5, 5, 5, 4]
    assert keys(out) == [(sample.sample_id, rollout) for sample in samples for rollout in (0, 1)]
    first = lines(out)[0]
    assert first["stop_reason"] == "answered"
    assert first["rewards"]["format"] == 1.0
    assert first["timings"] == {}


async def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(samples, tmp_path):
    whole = tmp_path / "whole.jsonl"
    await predict(expert_run(), samples, whole, lambda settled: None)
    content = whole.read_bytes()
    line_ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    cuts = {
        0,
        1,
        line_ends[0],
        line_ends[6],
        line_ends[11] - 1,
        *range(len(content) // 2, len(content), len(content) // 11),
    }
    out = tmp_path / "p.jsonl"
    await predict(expert_run(), samples, out, lambda settled: None)
    for cut in sorted(cuts):
        out.write_bytes(content[:cut])
        count = await predict(expert_run(), samples, out, lambda settled: None)
        assert out.read_bytes() == content
        assert count.written == 24 - content[:cut].count(b"\n")


async def test_a_complete_file_is_left_as_it_is(samples, tmp_path):
    out = tmp_path / "p.jsonl"
    await predict(expert_run(), samples, out, lambda settled: None)
    before = out.stat().st_mtime_ns
    search = CountedSearch()
    count = await predict(expert_run(search), samples, out, lambda settled: None)
    assert (count.total, count.written, search.num_calls) == (24, 0, 0)
    assert out.stat().st_mtime_ns == before


async def test_a_file_of_other_settings_is_refused_and_the_difference_named(samples, tmp_path):
    out = tmp_path / "p.jsonl"
    await predict(expert_run(), samples[:1], out, lambda settled: None)
    before = out.read_bytes()
    with pytest.raises(UsageError, match=r"other settings \(seed\)"):
        await predict(
            expert_run(identity={**IDENTITY, "seed": 1}), samples, out, lambda settled: None
        )
    with pytest.raises(UsageError, match=r"other settings \(extra\)"):
        await predict(
            expert_run(identity={**IDENTITY, "extra": True}), samples, out, lambda settled: None
        )
    assert out.read_bytes() == before
    await predict(expert_run(), samples, out, lambda settled: None)


async def test_a_file_that_nobody_claimed_is_not_appended_to(samples, tmp_path):
    out = tmp_path / "p.jsonl"
    out.write_text('{"id": "from elsewhere", "sample_idx": 0}\n')
    with pytest.raises(UsageError, match="other settings"):
        await predict(expert_run(), samples, out, lambda settled: None)
    assert "elsewhere" in out.read_text()


async def test_an_outage_keeps_what_succeeded_and_the_next_run_completes_it(samples, tmp_path):
    out = tmp_path / "p.jsonl"
    with pytest.raises(InfraError, match=r"no answer") as error:
        await predict(expert_run(CountedSearch(limit=9)), samples, out, lambda settled: None)
    assert "what succeeded is kept" in str(error.value)
    kept = out.read_bytes()
    assert 0 < kept.count(b"\n") < 24
    count = await predict(expert_run(), samples, out, lambda settled: None)
    assert (count.total, count.failed) == (24, 0)
    assert out.read_bytes().startswith(kept)
    assert sorted(keys(out)) == sorted(
        (sample.sample_id, rollout) for sample in samples for rollout in (0, 1)
    )


async def test_a_single_failure_among_many_is_counted_and_left_for_the_next_run(samples, tmp_path):
    class OneFailure(CountedSearch):
        async def run(self, action, sample):
            self.limit = 10**6 if self.num_calls != 7 else 0
            return await super().run(action, sample)

    out = tmp_path / "p.jsonl"
    count = await predict(
        expert_run(OneFailure(), max_infra_share=0.1), samples, out, lambda settled: None
    )
    assert (count.total, count.written, count.failed) == (23, 23, 1)
    assert (await predict(expert_run(), samples, out, lambda settled: None)).written == 1


async def test_timings_are_added_on_request(samples, tmp_path):
    out = tmp_path / "p.jsonl"
    await predict(expert_run(timings=True), samples[:1], out, lambda settled: None)
    assert lines(out)[0]["timings"].keys() == {"generate_s", "tools_s"}


def test_a_fingerprint_is_of_the_content(tmp_path, tiny_folder):
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
    assert fingerprint(tiny_folder) == fingerprint(tiny_folder)
    with pytest.raises(UsageError, match="no such file or folder"):
        fingerprint(tmp_path / "nowhere")


class SearchServer(ThreadingHTTPServer):
    """Speaks the protocol of the search server and is told when to break."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.broken_after = 10**6
        self.num_searches = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(200, Health(status="ok", version="0", encoder="none", collections={}))

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.num_searches += 1
        broken = self.server.num_searches > self.server.broken_after
        hit = Hit(id="1", title="Velmora", text="a harbour town", score=0.5, source="corpus#1")
        reply = (
            Problem(detail="out of order") if broken else SearchResponse(hits=[hit], took_ms=1.0)
        )
        self._answer(503 if broken else 200, reply)

    def _answer(self, status, reply):
        content = reply.model_dump_json().encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with SearchServer() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def command(mini, server):
    """Return a function that gives the command line for an output file."""

    def build(out, *more):
        return [
            "predict",
            "--data",
            str(mini.parquet("test")),
            "--search-url",
            server.url,
            "--out",
            str(out),
            "--threads",
            "1",
            *more,
        ]

    return build


def test_a_search_server_that_breaks_ends_the_command_and_loses_nothing(
    command, server, tiny_folder, tmp_path, capsys
):
    expert = ["--scripted", "expert", "--settings", str(tiny_folder), "--group-size", "4"]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
    assert main(command(whole, *expert)) == 0
    server.broken_after, server.num_searches = 6, 0
    assert main(command(out, *expert)) == EXIT_FAILED
    error = capsys.readouterr().err.splitlines()[-1]
    assert server.url in error
    assert "out of order" in error
    kept = out.read_text().splitlines()
    assert 4 <= len(kept) < 12
    server.broken_after = 10**6
    assert main(command(out, *expert)) == 0
    assert out.read_text().splitlines()[: len(kept)] == kept
    assert sorted(out.read_text().splitlines()) == sorted(whole.read_text().splitlines())


def test_a_search_server_that_is_not_there_is_told_before_any_work(
    command, server, tiny_folder, tmp_path, capsys
):
    server.shutdown()
    server.server_close()
    assert main(command(tmp_path / "p.jsonl", "--model", str(tiny_folder))) == EXIT_FAILED
    error = capsys.readouterr().err
    assert "is it running?" in error
    assert not (tmp_path / "p.jsonl").exists()


def test_a_command_that_is_finished_needs_neither_server_nor_model(
    command, server, tiny_folder, tmp_path, capsys
):
    expert = ["--scripted", "expert", "--settings", str(tiny_folder)]
    assert main(command(tmp_path / "p.jsonl", *expert)) == 0
    server.broken_after = 0
    num_searches = server.num_searches
    assert main(command(tmp_path / "p.jsonl", *expert)) == 0
    assert "all there already" in capsys.readouterr().out
    assert server.num_searches == num_searches


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--model", "/nowhere"], "/nowhere"),
        (["--scripted", "expert", "--rollouts", "0"], "--rollouts 0"),
        (["--scripted", "expert", "--group-size", "0"], "--group-size 0"),
        (["--scripted", "expert", "--threads", "0"], "--threads 0"),
        (["--scripted", "expert", "--limit", "-3"], "--limit -3"),
        (["--scripted", "expert", "--temperature", "-1"], "--temperature -1"),
        (["--scripted", "expert", "--temperature", "nan"], "--temperature nan"),
    ],
)
def test_impossible_options_are_one_line(command, tmp_path, capsys, more, told):
    assert main(command(tmp_path / "p.jsonl", *more)) == EXIT_USAGE
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_settings_do_not_depend_on_where_the_command_is_run(
    command, tmp_path, tiny_folder, monkeypatch
):
    tiny_settings().save(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    notes = []
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        out = tmp_path / f"{len(notes)}.jsonl"
        assert main(command(out, "--scripted", "expert", "--limit", "1")) == 0
        notes.append(out.with_suffix(".run.json").read_text())
    assert notes[0] == notes[1]


def test_killed_in_the_middle_and_run_again_gives_the_file_of_an_uninterrupted_run(
    command, tiny_folder, tmp_path
):
    pytest.importorskip("transformers", reason="models need the train extra")
    model = [
        "--model",
        str(tiny_folder),
        "--temperature",
        "1.0",
        "--seed",
        "3",
        "--group-size",
        "2",
    ]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "seg_research.cli.main", *command(out, *model)],
        stderr=subprocess.DEVNULL,
    )
    while not out.is_file() or out.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = out.read_bytes()
    assert 3 <= kept.count(b"\n") < 12
    with out.open("ab") as handle:
        handle.write(b'{"schema_version": 1, "id": "half a li')
    assert main(command(out, *model)) == 0
    assert main(command(whole, *model)) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert out.read_bytes().startswith(kept)
    assert len(set(keys(out))) == 12
    texts = {turn["text"] for row in lines(out) for turn in row["turns"]}
    assert len(texts) >= 12, "a sampling policy says something else each time"
