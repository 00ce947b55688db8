"""Imports point down. The rules stand in pyproject.toml; here they are run, and no package may be
left out of them.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_LAYER = {"configs"}  # YAML only
WITHOUT_CONTRACT = {"seg_research.configs"}


def test_import_linter_keeps_every_contract():
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed; it comes with the extra `dev`")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def contracts() -> list[dict]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"} == set(
        settings["root_packages"]
    )
    return settings["contracts"]


def bound(contract: dict) -> set[str]:
    """Return the modules that a contract says something about, those of layers without brackets."""
    keys = ("source_modules", "modules", "protected_modules")
    named = {name for key in keys for name in contract.get(key, ())}
    layers = " | ".join(contract.get("layers", ()))
    return named | {name.strip(" ()") for name in layers.split("|")} - {""}


def test_every_package_has_a_layer():
    packages = {p.parent.name for p in (ROOT / "seg_research").glob("*/__init__.py")}
    named = {f"seg_research.{name}" for name in packages - WITHOUT_LAYER}
    assert named - bound(contracts()[0]) == set()


def test_every_package_occurs_in_a_contract():
    named = set().union(*map(bound, contracts()))
    packages = {path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"}
    packages |= {path.parent for package in packages for path in package.glob("*/__init__.py")}
    dotted = {".".join(path.relative_to(ROOT).parts) for path in packages}
    within = {name for name in dotted if any(other.startswith(f"{name}.") for other in named)}
    assert dotted - named - within - WITHOUT_CONTRACT == set()


def test_all_of_the_retrieval_server_but_its_schemas_is_protected():
    folder = ROOT / "retrieval_server"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "schemas"}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    (protected,) = [c["protected_modules"] for c in contracts() if c["type"] == "protected"]
    assert set(protected) == {f"retrieval_server.{name}" for name in modules}
