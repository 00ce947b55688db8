"""Demonstrations deviate as often as they are told to, in the ways they say, and stay on the tiny tokenizer's grid."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.datasets.mini.grid import COORDINATE_STEP
from seg_research.datasets.sample import FrameTruth
from seg_research.policies.imitation import Variety, demonstration, on_grid
from seg_research.protocol.actions import Answer, FaultKind, FormatFault, Search, SelectKeyframe
from seg_research.protocol.parser import parse_turn
from seg_research.testing.samples import draw_sample

NEVER = Variety(skip_search=0, extra_search=0, poor_frame=0, no_thinking=0, gives_up=0)
STEPS = ("who is Velmora", "colour of Velmora")


@pytest.fixture
def sample(tmp_path):
    return draw_sample(tmp_path, frame_ids=(0, 5, 10, 15), steps=STEPS)


def read(sample, variety, rollout=0, seed=0):
    return [parse_turn(turn) for turn in demonstration(sample, rollout, seed, variety)]


def queries(turns) -> tuple[str, ...]:
    return tuple(turn.action.query for turn in turns if isinstance(turn.action, Search))


def varied(**changes) -> Variety:
    return dataclasses.replace(NEVER, **changes)


def test_without_deviation_it_is_the_expert_on_the_grid(sample):
    turns = read(sample, NEVER)
    best = on_grid(sample.truth.frames[10])
    assert queries(turns) == STEPS
    assert turns[-2].action == SelectKeyframe(10)
    (found,) = turns[-1].action.objects
    assert (found.box, found.points) == (best.box, (best.point,))
    assert all(turn.thinking for turn in turns)


@pytest.mark.parametrize("rollout", range(6))
def test_each_deviation_is_what_it_says(sample, rollout):
    assert queries(read(sample, varied(skip_search=1), rollout)) == ()
    assert queries(read(sample, varied(extra_search=1), rollout)) == (*STEPS, STEPS[-1])
    gives_up = read(sample, varied(gives_up=1), rollout)
    assert isinstance(gives_up[-1].action, FormatFault)
    assert gives_up[-1].action.kind is FaultKind.NO_ACTION
    thoughtless = read(sample, varied(no_thinking=1), rollout)
    assert sum(turn.thinking is None for turn in thoughtless) == 1
    assert not any(isinstance(turn.action, FormatFault) for turn in thoughtless)


def test_a_poor_frame_still_shows_the_target(sample):
    chosen = {read(sample, varied(poor_frame=1), rollout)[-2].action.frame_id for rollout in range(40)}
    assert chosen == set(sample.truth.frames) == {0, 5, 10}
    for rollout in range(10):
        *_, keyframe, answer = read(sample, varied(poor_frame=1), rollout)
        assert answer.action.objects[0].box == on_grid(sample.truth.frames[keyframe.action.frame_id]).box


def test_demonstrations_depend_on_their_arguments_alone(sample, tmp_path):
    variety = Variety()
    first = [demonstration(sample, rollout, 0, variety) for rollout in range(20)]
    assert first == [demonstration(sample, rollout, 0, variety) for rollout in range(20)]
    assert len({tuple(turns) for turns in first}) > 5
    assert first != [demonstration(sample, rollout, 1, variety) for rollout in range(20)]
    other = draw_sample(tmp_path, "other", frame_ids=(0, 5, 10, 15), steps=STEPS)
    assert first != [demonstration(other, rollout, 0, variety) for rollout in range(20)]


def test_deviations_come_about_as_often_as_asked(sample):
    turns = [read(sample, varied(skip_search=0.3, gives_up=0.3), rollout) for rollout in range(400)]
    assert 0.22 < sum(not queries(one) for one in turns) / 400 < 0.38
    assert 0.22 < sum(not isinstance(one[-1].action, Answer) for one in turns) / 400 < 0.38


def test_a_target_in_the_last_corner_stays_in_the_picture():
    corner = on_grid(FrameTruth(Norm1000Box(995, 992, 1000, 1000), Norm1000Point(998, 1000), 1.0, 1.0))
    assert corner.box == Norm1000Box(1000 - COORDINATE_STEP, 1000 - COORDINATE_STEP, 1000, 1000)


low, high = st.floats(0, 1000), st.floats(0, 1000)


@given(st.tuples(low, high), st.tuples(low, high), st.floats(0, 1), st.floats(0, 1))
def test_the_grid_keeps_an_area_and_the_point_inside(xs, ys, along, down):
    (x1, x2), (y1, y2) = sorted(xs), sorted(ys)
    if not (x1 < x2 and y1 < y2):
        return
    point = Norm1000Point(min(max(x1 + along * (x2 - x1), x1), x2), min(max(y1 + down * (y2 - y1), y1), y2))
    rounded = on_grid(FrameTruth(Norm1000Box(x1, y1, x2, y2), point, 0.5, 0.25))
    assert all(value % COORDINATE_STEP == 0 for value in [*rounded.box.as_list(), rounded.point.x, rounded.point.y])
    assert rounded.box.contains(rounded.point)
    assert (rounded.area, rounded.max_conn_area) == (0.5, 0.25)
    for before, after in zip((x1, y1, x2, y2), rounded.box.as_list(), strict=True):
        assert abs(after - before) <= 1.5 * COORDINATE_STEP
