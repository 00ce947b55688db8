"""Help answers without loading anything heavy, and every command shows how it is used."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest

from seg_research.cli.main import COMMANDS, main, module_of

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


def examples(command: str) -> list[list[str]]:
    """Return the words of each example; what stands apart behind a command is a remark."""
    text = importlib.import_module(module_of(command)).EXAMPLES.replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    return [shlex.split(re.split(r"(?<=\S) {3,}(?=[^ -])", line)[0]) for line in map(glue, lines)]


def glue(line: str) -> str:
    """Close the gaps of a command that went over several lines."""
    return re.sub(r" {3,}(?=\S+=|--|-d )", " ", line).strip()


EXAMPLES = [
    pytest.param(words[1:], id=f"{command}-{number}")
    for command in COMMANDS
    for number, words in enumerate(examples(command))
    if words and words[0] == "seg-research"
]


@pytest.mark.parametrize("arguments", EXAMPLES)
def test_the_examples_of_the_help_are_understood(arguments, monkeypatch):
    if arguments[-1] == "--help":
        return
    read = []
    module = importlib.import_module(module_of(arguments[0]))
    monkeypatch.setattr(module, "run", lambda options: read.append(options) or 0)
    assert main(arguments) == 0
    (options,) = read
    if arguments[0] == "data":
        module.read_arguments(options.name, options.rest)
    elif arguments[0] in {"train", "sft"}:
        pytest.importorskip("verl", reason="verl comes with the train extra")
        compose(arguments[0], options)


def compose(command: str, options) -> None:
    from seg_research.training.launch.config import compose_config
    from seg_research.training.sft.config import compose_sft

    {"train": compose_config, "sft": compose_sft}[command](options.overrides)


def test_the_examples_of_every_command_are_found():
    commands = {parameters.values[0][0] for parameters in EXAMPLES}
    assert commands == set(COMMANDS)
