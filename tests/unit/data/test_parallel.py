import math

import pytest

from seg_common.errors import UsageError
from seg_research.core.masks import read_mask
from seg_research.data.parallel import map_ordered


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_progress_counts_them(workers):
    told = []
    results = list(
        map_ordered(
            math.factorial, [5, 1, 4, 2], workers, lambda done, total: told.append((done, total))
        )
    )
    assert results == [120, 1, 24, 2]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through_as_it_was_raised(tmp_path, workers):
    with pytest.raises(UsageError, match=r"gone\.png: no such mask file"):
        list(map_ordered(read_mask, [tmp_path / "gone.png", tmp_path / "gone too.png"], workers))
