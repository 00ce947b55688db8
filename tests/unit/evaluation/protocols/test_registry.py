"""An evaluation protocol is one file: found by its name, and as easily outside the package."""

import json
import sys

import pytest

from seg_common.errors import UsageError
from seg_research.cli.main import EXIT_USAGE, main
from seg_research.evaluation.protocols import PROTOCOLS

TOY = '''"""Count the files of every sample. Nothing is looked into."""

from dataclasses import dataclass

from seg_research.evaluation.protocol import EvaluationProtocol


@dataclass
class Counts:
    found: dict
    num_broken: int = 0

    def to_markdown(self):
        return "| files |\\n|---|\\n" + "".join(f"| {n} |\\n" for n in self.found.values())

    def to_json(self):
        return self.found

    def remarks(self):
        return [f"{len(self.found)} samples"]


def evaluate(job):
    names = job.truth.read_text().split()
    found = {}
    for name in names:
        found[name] = len(list((job.masks_dir / name).iterdir()))
        job.on_sample(len(names), ["it is empty"] if not found[name] else [])
    return Counts(found, num_broken=sum(not n for n in found.values()))


SPEC = EvaluationProtocol("files", evaluate)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch) -> str:
    """Write a package with one protocol in it, and masks to judge."""
    package = tmp_path / "toy_protocols"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "files.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "seg" / name).mkdir(parents=True)
    (tmp_path / "seg" / "a" / "0.png").touch()
    (tmp_path / "list.txt").write_text("a b")
    yield "toy_protocols"
    for name in ("toy_protocols", "toy_protocols.files"):
        sys.modules.pop(name, None)


def evaluate(*options):
    return main(["evaluate", "seg", "--truth", "list.txt", *options])


def test_a_protocol_of_ones_own_judges_and_is_written(toy, tmp_path, capsys):
    assert evaluate("--protocol", f"{toy}.files:SPEC", "--json", "out.json") == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:5] == ["| files |", "|---|", "| 1 |", "| 0 |", "2 samples"]
    assert "broken, counts 0: it is empty" in captured.err
    assert json.loads((tmp_path / "out.json").read_text()) == {"a": 1, "b": 0}


def test_a_module_in_the_folder_is_a_protocol_without_any_other_line(toy, monkeypatch, capsys):
    monkeypatch.setattr(PROTOCOLS, "_package", toy)
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "files      Count the files of every sample\n" in capsys.readouterr().out
    assert evaluate("--protocol", "files") == 1


@pytest.mark.parametrize("choice", [["--average", "frames"], ["--inner-frames"]])
def test_a_protocol_without_choices_refuses_them(toy, capsys, choice):
    assert evaluate("--protocol", f"{toy}.files:SPEC", *choice) == EXIT_USAGE
    assert "protocol files says which frames count" in capsys.readouterr().err


def test_an_unknown_protocol_is_refused(toy, capsys):
    assert evaluate("--protocol", "revos") == EXIT_USAGE
    error = capsys.readouterr().err
    assert "unknown evaluation protocol 'revos'; there are: jf, or your own" in error
    with pytest.raises(UsageError, match="has no EvaluationProtocol 'evaluate'"):
        PROTOCOLS.find(f"{toy}.files:evaluate")
