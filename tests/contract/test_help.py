"""Help answers without loading anything heavy, and every command shows how it is used."""

import subprocess
import sys

import pytest

from seg_research.cli.main import COMMANDS, main

HEAVY = {
    "torch",
    "transformers",
    "verl",
    "ray",
    "hydra",
    "numpy",
    "scipy",
    "cv2",
    "av",
    "PIL",
    "pandas",
    "pyarrow",
    "fastapi",
    "httpx",
    "jinja2",
}

PROBE = """
import contextlib, io, sys
from seg_research.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    try:
        status = main({arguments})
    except SystemExit as stopped:
        status = stopped.code
assert not status, status
print(*sorted({heavy} & set(sys.modules)))
"""


def heavy_modules_after(arguments: list[str], heavy: set[str]) -> str:
    code = PROBE.format(arguments=arguments, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_the_probe_sees_what_is_loaded():
    assert heavy_modules_after(["--help"], {"argparse"}) == "argparse"


def test_top_level_help_loads_nothing_heavy():
    assert heavy_modules_after(["--help"], HEAVY) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(command):
    assert heavy_modules_after([command, "--help"], HEAVY) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "example" in shown
    assert f"seg-research {command}" in shown.partition("example")[2]
