"""Every command in a ```bash block of the documentation exists and is spelt right; none is run."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from seg_research.cli.main import COMMANDS, MODULES, main

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "verl").glob("*.md"),
    ]
)
FENCE = re.compile(r"^( *)```bash *\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
SEPARATORS = {"&&", "||", "|", ";", "&"}
ELSEWHERE = {
    "git",
    "cd",
    "export",
    "pip",
    "curl",
    "ls",
    "open",
    "xdg-open",
    "python3.11",
    "nvidia-smi",
    "docker",
    "sudo",
    "kill",
    "source",
}
ELSEWHERE |= {"ray", "serve"}
"""Programs of other people: nothing of ours to check in their arguments."""


def commands(markdown: str) -> Iterator[list[str]]:
    """Yield each simple command as words: prompts, comments, variable assignments, redirections and
    continuation lines taken away.
    """
    for match in FENCE.finditer(markdown):
        for line in match[2].replace("\\\n", " ").splitlines():
            plain = re.sub(r"\d?>&\d", "", line.strip().removeprefix("$ "))
            lexer = shlex.shlex(plain, posix=True, punctuation_chars="&|;")
            lexer.whitespace_split, lexer.commenters = True, "#"
            yield from _simple(list(lexer))


def _simple(words: list[str]) -> Iterator[list[str]]:
    """Split at separators; drop redirections (`> log`, `2>log`) and leading assignments."""
    current: list[str] = []
    words = [
        w
        for w, before in zip(words, ["", *words], strict=False)
        if not re.match(r"\d?>", w) and not re.fullmatch(r"\d?>>?", before)
    ]
    for word in [*words, ";"]:
        if word not in SEPARATORS:
            current.append(word)
            continue
        while current and re.fullmatch(r"[A-Za-z_]\w*=.*", current[0]):
            current.pop(0)
        if current:
            yield current
        current = []


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def problem_with(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Say what is wrong with a command of ours; None where nothing is."""
    program, *arguments = words
    name = re.sub(r"^\.venv(-vllm)?/bin/", "", program)
    if name == "make":
        wanted = {a for a in arguments if "=" not in a and not a.startswith("-")}
        return (
            f"no such make target: {wanted - make_targets()}" if wanted - make_targets() else None
        )
    if name == "seg-research":
        return problem_with_arguments(arguments, monkeypatch)
    if name in {"python", "bash", "sh"} or program.startswith(
        ("./", ".ci/", "examples/", "data/", "benchmarks/")
    ):
        return problem_with_script([program] if "/" in program and name == program else arguments)
    if name in ELSEWHERE or name != program:
        return None
    return f"{program}: unknown program; add it to ELSEWHERE in this test if it is somebody else's"


def problem_with_script(arguments: list[str]) -> str | None:
    if arguments[:1] == ["-m"]:
        return None if importlib.util.find_spec(arguments[1]) else f"no such module: {arguments[1]}"
    if arguments[:1] == ["-c"] or not arguments:
        return None
    return None if (ROOT / arguments[0]).is_file() else f"no such file: {arguments[0]}"


def problem_with_arguments(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Give the arguments to the real parser, with the command's own work taken out."""
    command = next((a for a in arguments if not a.startswith("-")), None)
    if command in COMMANDS:
        module = MODULES.get(command, f"seg_research.cli.{command}")
        monkeypatch.setattr(f"{module}.run", lambda options: 0)
    elif command is not None and command.isupper():
        return None  # a placeholder: seg-research COMMAND --help
    try:
        status = main(arguments)
    except SystemExit as stopped:  # --help
        status = stopped.code
    return f"the parser refuses: seg-research {shlex.join(arguments)}" if status else None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_on_this_page_exist(page, monkeypatch, capsys):
    found = [problem_with(words, monkeypatch) for words in commands(page.read_text())]
    assert [problem for problem in found if problem] == []


def test_the_readme_shows_the_two_commands():
    shown = list(commands((ROOT / "README.md").read_text()))
    assert ["make", "demo"] in shown
    assert ["make", "test"] in shown


def test_reading_a_block():
    block = (
        "```bash\n$ cd x && A=1 make test  # why\nseg-research serve \\\n  --port 1 > log 2>&1"
        " &\n```\n```python\nmake nothing\n```\n"
    )
    assert list(commands(block)) == [
        ["cd", "x"],
        ["make", "test"],
        ["seg-research", "serve", "--port", "1"],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "make tset",
        "seg-research report --no-such-option",
        "seg-research rport",
        "python examples/none.py",
        "frobnicate",
    ],
)
def test_a_wrong_command_is_found(line, monkeypatch, capsys):
    assert problem_with(shlex.split(line), monkeypatch)
