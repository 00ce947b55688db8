"""A pytest plugin for `make test-fast`: its tests compute, and neither load torch or Ray nor start
processes.
"""

import subprocess
import sys
from typing import Any

import pytest

HEAVY = ("torch", "ray", "verl", "transformers")


def _refuse(*_: Any, **__: Any) -> None:
    pytest.skip("starts a process, so it runs in make test")


def pytest_configure() -> None:
    subprocess.Popen = _refuse  # type: ignore[assignment,misc]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Fail the first test after which a heavy package is loaded."""
    before = loaded()
    result = yield
    assert loaded() == before, f"{item.nodeid} loads {loaded() - before}"
    return result


def pytest_collection_finish() -> None:
    assert not loaded(), f"a module of tests of pure logic loads {loaded()}"


def loaded() -> set[str]:
    return set(HEAVY) & sys.modules.keys()
