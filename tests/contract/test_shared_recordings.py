"""Tests with real recordings are skipped where `../shared` is absent, and only there: a path that
is wrong by a folder would skip them everywhere, in silence.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"Path\(__file__\)\.parents\[(\d+)\] / \"shared\b")
FILES = sorted(path for path in TESTS.rglob("*.py") if NAMED.search(path.read_text()))


def test_there_are_such_tests():
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_shared_is_looked_for_beside_the_checkout(path):
    beside = path.parents.index(TESTS.parents[1])
    assert {int(number) for number in NAMED.findall(path.read_text())} == {beside}
