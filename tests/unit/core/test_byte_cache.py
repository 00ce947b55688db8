"""Values are made once, bounded in bytes, and a failure hurts nobody but who asked."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.core.byte_cache import ByteCache


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(1, 30))
def test_what_is_kept_never_takes_more_bytes_than_allowed(keys, max_bytes):
    cache = ByteCache(max_bytes)
    for key in keys:
        assert cache.get(key, lambda key=key: "x" * key, len) == "x" * key
        assert cache.num_bytes <= max_bytes


def test_the_least_recently_used_goes_first():
    cache, made = ByteCache(2), []

    def get(key):
        return cache.get(key, lambda: made.append(key), lambda _: 1)

    for key in "abacab":
        get(key)
    assert made == ["a", "b", "c", "b"]


def test_a_value_that_is_too_large_displaces_nothing():
    cache, made = ByteCache(2), []
    cache.get("small", lambda: made.append("small"), lambda _: 1)
    cache.get("large", lambda: made.append("large"), lambda _: 3)
    cache.get("small", lambda: made.append("small"), lambda _: 1)
    assert made == ["small", "large"]


def test_threads_that_want_the_same_wait_for_the_one_that_makes_it():
    cache, made, go = ByteCache(9), [], threading.Event()

    def make():
        go.wait(5)
        made.append(1)
        return "value"

    with ThreadPoolExecutor(4) as pool:
        wanted = [pool.submit(cache.get, "key", make, len) for _ in range(4)]
        go.set()
        assert [one.result(5) for one in wanted] == ["value"] * 4
    assert made == [1]


def test_after_a_failure_the_next_one_tries_again():
    cache = ByteCache(9)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 // 0, lambda _: 1)
    assert cache.get("key", lambda: "value", len) == "value"
