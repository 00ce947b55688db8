"""Where vLLM is not installed, these tests are skipped with the way to get it."""

from importlib.util import find_spec

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("vllm") and find_spec("vllm") is None:
            item.add_marker(
                pytest.mark.skip(reason="vLLM has an environment of its own: make test-vllm")
            )
