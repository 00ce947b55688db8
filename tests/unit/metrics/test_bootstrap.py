import numpy as np
import pytest

from seg_research.metrics.bootstrap import interval


def mean(numerators, denominators):
    return numerators / denominators


def interval_of(values, sizes=None):
    values = np.asarray(values, float)
    sizes = np.ones(len(values)) if sizes is None else np.asarray(sizes, float)
    low, high = interval((values * sizes)[:, None, None], sizes[:, None, None], mean)
    return float(low[0, 0]), float(high[0, 0])


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = interval_of(values)
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx(
        (values.mean() - half_width, values.mean() + half_width), abs=0.1 * half_width
    )


def test_questions_about_one_target_count_as_one_draw():
    values = np.random.default_rng(1).normal(size=50)
    alone, in_tens = interval_of(values), interval_of(values, np.full(50, 10))
    assert in_tens == pytest.approx(alone), "ten equal questions a target say no more than one"


def test_it_is_the_same_every_time_and_however_it_is_cut(monkeypatch):
    values = np.random.default_rng(2).random(30)
    whole = interval_of(values)
    monkeypatch.setattr("seg_research.metrics.bootstrap._MAX_CELLS", 300)
    assert interval_of(values) == whole


def test_equal_values_have_no_spread():
    assert interval_of([3.0] * 7) == pytest.approx((3.0, 3.0))
