"""Limits that no episode could live with are refused when they are made."""

import pytest

from seg_common.errors import UsageError
from seg_common.validation import validated
from seg_research.episode.limits import Limits


def test_the_published_limits_are_the_defaults():
    limits = Limits()
    assert (limits.max_tool_calls, limits.max_turn_tokens, limits.max_response_tokens) == (
        6,
        4096,
        8192,
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tool_calls": 0},
        {"max_faults": -1},
        {"max_turn_tokens": 0},
        {"reserve_tokens": -1},
        # Without a reserve an observation may fill the context to the last token, and the next turn
        # has no room at all.
        {"reserve_tokens": 0},
        {"reserve_tokens": 8192},
        {"max_response_tokens": 256},
        {"max_response_tokens": 0},
    ],
)
def test_impossible_limits_are_refused_with_their_values(bad):
    with pytest.raises(UsageError, match="limits: ") as caught:
        validated(Limits, bad, "limits")
    name, value = next(iter(bad.items()))
    assert f"{name}={value}" in str(caught.value)


def test_the_smallest_limits_are_allowed():
    assert Limits(
        max_tool_calls=1, max_faults=0, max_turn_tokens=1, max_response_tokens=2, reserve_tokens=1
    )
