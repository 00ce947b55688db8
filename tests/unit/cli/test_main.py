"""What the command line says when it cannot do its work."""

import pytest

from seg_research.cli import main as command_line


@pytest.fixture
def report_fails(monkeypatch):
    """Return a function that makes `seg-research report` end with an error."""

    def make(error: Exception) -> None:
        def run(options: object) -> int:
            raise error

        monkeypatch.setattr("seg_research.cli.report.run", run)

    return make


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    report_fails, capsys
):
    report_fails(ModuleNotFoundError("No module named 'verl.trainer'", name="verl.trainer"))
    assert command_line.main(["report", "--run", "outputs"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "verl is not installed" in line
    assert "pip install" in line


def test_a_module_of_ours_that_is_missing_is_a_bug(report_fails, capsys):
    report_fails(ModuleNotFoundError("No module named 'seg_research.x'", name="seg_research.x"))
    assert command_line.main(["report", "--run", "outputs"]) == 1
    assert "internal error" in capsys.readouterr().err
