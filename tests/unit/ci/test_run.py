"""What `.ci/run` promises, with a Makefile of fakes in the place of the real one."""

import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[3] / ".ci" / "run"
PARTS = ("install", "check", "setup-vllm", "test", "test-slow", "test-vllm")


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a copy of the program where the named target of make fails."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(RUN, tmp_path / ".ci" / "run")

    def start(broken: str = "") -> subprocess.CompletedProcess[str]:
        targets = ("install", "check", "setup-vllm-cpu", "test", "test-slow", "test-vllm")
        rules = [
            f"{name}:\n\t@echo 1 passed by {name}\n\t@{'false' if name == broken else 'true'}\n"
            for name in targets
        ]
        (tmp_path / "Makefile").write_text("".join(rules))
        command = [tmp_path / ".ci" / "run"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return start


def table(output: str) -> dict[str, str]:
    """The last lines of the output: how each part ended, by its name."""
    _, _, rows = output.partition("== seconds by part")
    words = [line.split(maxsplit=3) for line in rows.splitlines()[1:]]
    return {parts[0]: parts[3] for parts in words if len(parts) == 4 and parts[2] == "s"}


def test_all_parts_run_and_their_seconds_are_told(run):
    done = run()
    assert done.returncode == 0, done.stdout
    assert table(done.stdout) == dict.fromkeys(PARTS, "passed")
    assert "1 passed by test-slow" in done.stdout
    assert "1 passed by check" in done.stdout, "what ran beside the tests is shown, too"
    assert done.stdout.endswith("ci: all passed\n")


@pytest.mark.parametrize(
    ("broken", "never_started"),
    [
        ("install", ["test", "check", "test-vllm"]),
        ("test", ["test-slow", "test-vllm"]),
        ("check", ["setup-vllm", "test-slow"]),
        ("setup-vllm-cpu", ["test-slow"]),
        ("test-slow", ["test-vllm"]),
        ("test-vllm", []),
    ],
)
def test_a_part_that_fails_ends_the_run_and_the_table_says_which(run, broken, never_started):
    done = run(broken)
    assert done.returncode != 0
    rows = table(done.stdout)
    assert rows[broken.removesuffix("-cpu")].startswith("FAILED with exit status")
    assert not rows.keys() & set(never_started)
    assert f"1 passed by {broken}" in done.stdout, "its output is shown"
    assert done.stdout.endswith("ci: FAILED\n")
