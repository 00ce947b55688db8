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


def test_import_linter_keeps_every_contract():
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed; it comes with the extra `dev`")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_package_has_a_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = {name.strip(" ()") for line in contracts[0]["layers"] for name in line.split("|")}
    packages = {p.parent.name for p in (ROOT / "seg_research").glob("*/__init__.py")}
    assert {f"seg_research.{name}" for name in packages - WITHOUT_LAYER} - layers == set()
