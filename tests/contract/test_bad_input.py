"""Bad input gives one line that says what to do, exit code 2, never a traceback; what was written
before is kept.
"""

import json
import os
import resource
import socket
import subprocess
import sys

import pytest
from PIL import Image

from seg_research.cli.main import main
from seg_research.data.preparation import Preparation
from seg_research.data.prepare import prepare
from seg_research.data.readers import okvos
from seg_research.mini.writer import MiniSizes, write_mini


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad") / "mini"
    write_mini(root, 0, MiniSizes(train=4, val=4, test=4))
    for split in ("train", "val"):
        tiny = Preparation(split=split, max_size_px=64, min_size_px=64, patch_factor=16)
        prepare(okvos.SPEC, root, tiny)
    return root


def prediction(video, **changes):
    row = {
        "schema_version": 1,
        "id": "x",
        "sample_idx": 0,
        "video_path": str(video),
        "frame_names": ["00000"],
        "query": "q",
        "ability": "one-hop",
        "data_source": "",
        "turns": [],
        "keyframe": {"id": 0, "position": 0},
        "objects": [
            {
                "box_norm1000": [100, 100, 900, 900],
                "points_norm1000": [[500, 500]],
                "negative_points_norm1000": [],
            }
        ],
        "stop_reason": "answered",
        "rewards": {},
        "num_search": 0,
        "timings": {},
    }
    return row | changes


def complaint(capsys, *arguments):
    code = main([str(a) for a in arguments])
    error = capsys.readouterr().err
    line = error.splitlines()[-1]
    assert code == 2, error
    assert line.startswith("seg-research: ")
    assert "Traceback" not in error
    return line


def test_a_missing_parquet(capsys, tmp_path):
    assert "no such file" in complaint(
        capsys,
        "predict",
        "--data",
        tmp_path / "none.parquet",
        "--scripted",
        "expert",
        "--text",
        "x",
        "--out",
        tmp_path / "p.jsonl",
    )


def test_wrong_json_names_file_and_line(capsys, tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(prediction(tmp_path)) + "\n{broken\n")
    assert f"{path} line 2" in complaint(
        capsys, "segment", path, "--backend", "box", "--workers", "1"
    )


def test_an_unknown_recipe(capsys, mini, tmp_path):
    pytest.importorskip("verl", reason="verl comes with the train extra")
    line = complaint(capsys, "train", "recipe=nonsense", f"seg.run_dir={tmp_path}")
    assert "nonsense" in line
    assert "seg_research" in line


def test_a_misspelt_key(capsys, tmp_path):
    pytest.importorskip("verl", reason="verl comes with the train extra")
    assert "max_turn_token" in complaint(
        capsys, "train", "seg.episode.limits.max_turn_token=5", f"seg.run_dir={tmp_path}"
    )


def test_no_search_server_was_named(capsys, mini, tmp_path):
    data = mini / "val_6_64_64.parquet"
    assert "--text" in complaint(
        capsys, "predict", "--data", data, "--scripted", "expert", "--out", tmp_path / "p.jsonl"
    )


def test_a_model_folder_without_a_model(capsys, mini, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [
        "--data",
        mini / "val_6_64_64.parquet",
        "--model",
        tmp_path / "empty",
        "--search-url",
        "http://127.0.0.1:9",
    ]
    assert "config.json" in complaint(capsys, "predict", *arguments, "--out", tmp_path / "p.jsonl")


def test_a_port_in_use(capsys, mini):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in complaint(
            capsys, "serve", "--port", port, "--text", mini / "local_KB" / "text_corpus.jsonl"
        )


def test_a_missing_video_is_reported_and_the_rest_goes_on(capsys, tmp_path):
    video = tmp_path / "video"
    video.mkdir()
    Image.new("RGB", (64, 48), "red").save(video / "00000.jpg")
    path = tmp_path / "predictions.jsonl"
    rows = [prediction(tmp_path / "gone", id="gone"), prediction(video, id="there")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["segment", str(path), "--backend", "box", "--workers", "1"]) == 1
    out = capsys.readouterr()
    assert "gone" in out.out + out.err
    assert "Traceback" not in out.out + out.err
    assert (tmp_path / "seg" / "there" / "00000.png").is_file()


def test_a_corrupt_frame_is_named(capsys, tmp_path):
    video = tmp_path / "video"
    video.mkdir()
    (video / "00000.jpg").write_bytes(b"not a picture")
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(prediction(video)) + "\n")
    assert main(["segment", str(path), "--backend", "box", "--workers", "1"]) == 1
    out = capsys.readouterr()
    assert "00000.jpg" in out.out + out.err
    assert "Traceback" not in out.out + out.err


def test_a_full_disk_stops_with_one_line_and_keeps_what_was_written(mini, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("before")

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))

    command = [
        sys.executable,
        "-m",
        "seg_research.cli.main",
        "data",
        "mini",
        "--out",
        str(tmp_path / "mini"),
        "--train",
        "4",
        "--val",
        "4",
    ]
    done = subprocess.run(
        [*command, "--test", "4", "--workers", "1"],
        preexec_fn=small_files_only,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "free some space" in done.stderr.splitlines()[-1]
    assert kept.read_text() == "before"
