"""The parts of `make setup-vllm-cpu` that can be checked without installing anything."""

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

CI = Path(__file__).parents[3] / ".ci"


def load(name):
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def helper():
    pytest.importorskip("pip", reason="the helper reads requirements with pip's own parser")
    return load("vllm_cpu")


def test_the_later_pin_counts_however_it_is_spelt(helper, tmp_path):
    (tmp_path / "a").write_text("# all\nnumpy==2.4.6\nlxml_html_clean==1\n\nverl==0.9.1  # ours\n")
    (tmp_path / "b").write_text("numpy==2.3.5\nlxml-html-clean==2\n")
    assert helper.merge(str(tmp_path / "a"), str(tmp_path / "b")).split() == [
        "numpy==2.3.5",
        "lxml-html-clean==2",
        "verl==0.9.1",
    ]


def test_what_a_wheel_requires_is_listed_without_what_breaks_beside_a_cpu_torch(helper, tmp_path):
    wheel = tmp_path / "x-1-py3-none-any.whl"
    markers = ["Triton; sys_platform == 'linux'", "six; python_version < '3'", "more; extra == 'x'"]
    lines = ["fastapi[standard]<2", "torch==2.13.0+cpu", "torchvision", *markers]
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr(
            "x-1.dist-info/METADATA",
            "\n".join(["Name: x", *(f"Requires-Dist: {line}" for line in lines)]) + "\n",
        )
    assert helper.requirements(str(wheel)).split("\n") == ["fastapi[standard]<2"]


def test_torchvision_gets_its_operators_before_its_code_runs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="the hook declares operators of torch")
    (tmp_path / "torchvision.py").write_text(
        "import torch\nfound = torch.ops.torchvision.nms.default\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    del sys.modules["torchvision"]
    load("torchvision_without_cuda")
    module = importlib.import_module("torchvision")
    assert module.found is torch.ops.torchvision.nms.default
    with pytest.raises(NotImplementedError):
        module.found(torch.zeros(1, 4), torch.zeros(1), 0.5)
