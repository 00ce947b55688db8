import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.viewer.curve import MAX_POINTS, Series, draw, format_value, read_series


def test_series_are_collected_by_name():
    main, terms = read_series(
        [
            {"step": 2, "reward": 0.5, "valid": 1.0, "terms": {"box": 0.3}},
            {"step": 1, "reward": 0.1, "searches": 2, "terms": {"box": None}},
        ]
    )
    assert [(s.label, s.points) for s in main] == [
        ("mean reward", ((1.0, 0.1), (2.0, 0.5))),
        ("searches per episode", ((1.0, 2.0),)),
        ("well-formed episodes", ((2.0, 1.0),)),
    ]
    assert [(s.label, s.points) for s in terms] == [("box", ((2.0, 0.3),))]


@pytest.mark.parametrize("value", [None, "0.5", True, math.nan, math.inf, 10**400, [], {}])
def test_what_is_no_number_is_a_gap(value):
    main, terms = read_series(
        [{"step": 1, "reward": value, "terms": {"box": value}}, {"step": 2, "reward": 1.0}]
    )
    assert main[0].points == ((2.0, 1.0),)
    assert terms == []


@pytest.mark.parametrize(
    "record", [{"reward": 1.0}, {"step": "1", "reward": 1.0}, {"step": None, "reward": 1.0}]
)
def test_a_line_without_a_step_is_left_out(record):
    assert read_series([record]) == ([], [])


@pytest.mark.parametrize("terms", ["box", [1], None, 3])
def test_terms_of_another_type_are_left_out(terms):
    assert read_series([{"step": 1, "reward": 1.0, "terms": terms}])[1] == []


def test_a_repeated_step_counts_as_its_last_line_says():
    main, _ = read_series([{"step": 1, "reward": 0.0}, {"step": 1, "reward": 0.7}])
    assert main[0].points == ((1.0, 0.7),)


def test_first_and_last_are_means_of_a_tenth():
    chart = draw(Series("r", tuple((float(i), float(i)) for i in range(20))))
    assert (chart.first, chart.last) == ("0.50", "18.5")


def test_a_rising_line_goes_from_bottom_left_to_top_right():
    chart = draw(Series("r", ((1.0, 0.0), (2.0, 1.0))))
    (x0, y0, first), (x1, y1, last) = chart.samples
    assert (x0, y0, first) == (0.0, 100.0, "step 1: 0.00")
    assert x1 == 100.0
    assert y1 < 10
    assert last == "step 2: 1.00"


def test_a_single_step_is_a_dot_in_the_middle():
    chart = draw(Series("r", ((7.0, 0.4),)))
    assert chart.samples[0][0] == 50.0
    assert chart.line.startswith("M500.0")
    assert [tick.label for tick in chart.x_ticks] == ["7"]


def test_long_curves_are_thinned_to_means():
    chart = draw(Series("r", tuple((float(i), float(i % 2)) for i in range(100_000))))
    assert len(chart.samples) <= MAX_POINTS
    assert chart.samples[1][2].endswith(": 0.50")


def test_fractions_are_drawn_between_nothing_and_all():
    chart = draw(Series("v", ((1.0, 0.5), (2.0, 0.5)), percent=True))
    assert [(tick.at_percent, tick.label) for tick in chart.y_ticks] == [
        (100.0, "0 %"),
        (50.0, "50 %"),
        (0.0, "100 %"),
    ]
    assert chart.samples[0][1] == 50.0


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e12, 1e12)), min_size=1, max_size=40),
    st.booleans(),
)
def test_every_point_and_tick_stays_inside(pairs, percent):
    points = tuple(sorted({float(step): value for step, value in pairs}.items()))
    chart = draw(Series("any", points, percent))
    assert all(-1e-6 <= x <= 100 + 1e-6 and -1e-6 <= y <= 100 + 1e-6 for x, y, _ in chart.samples)
    assert all(-1e-6 <= tick.at_percent <= 100 + 1e-6 for tick in (*chart.x_ticks, *chart.y_ticks))
    assert 1 <= len(chart.y_ticks) <= 8


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123, "0.12"), (12.34, "12.3"), (-3.0, "-3.00"), (12345.0, "1.23e+04")]
)
def test_numbers_are_short(value, shown):
    assert format_value(value) == shown


def test_fractions_are_per_cent():
    assert format_value(0.974, percent=True) == "97 %"
