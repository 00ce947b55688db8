"""The demonstrator reads facts off the passages it is shown, says nothing it cannot know, and
strays as often as it is told to.
"""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.data.rows import read_samples
from seg_research.data.sample import TargetOnFrame
from seg_research.episode.transcript import Message, Text
from seg_research.mini.expert_noise import NO_MISTAKES, MistakeRates
from seg_research.mini.grid import COORDINATE_STEP
from seg_research.mini.noisy_expert import NoisyExpert, on_grid, read_meanings
from seg_research.recipes.seg_research.actions import Answer, Search, ShowFrame
from seg_research.recipes.seg_research.grammar import parse_turn


@pytest.fixture(scope="module")
def samples(mini):
    return {
        sample.ability: sample
        for sample in read_samples(mini.parquet("train"))
        if sample.truth and sample.truth.is_visible
    }


def play(conversation, passages):
    """Answer each search with the passage that has its name, among others; return the turns."""

    async def run():
        turns = []
        while True:
            text = (await conversation.generate(96)).text
            turns.append(text)
            action = parse_turn(text).action
            if isinstance(action, Answer):
                return turns
            shown = "Frame 0 in high resolution: "
            if isinstance(action, Search):
                hits = [p for title, p in passages.items() if title in action.query.split()]
                lines = "".join(
                    f"{rank}. {hit}\n"
                    for rank, hit in enumerate(
                        ["(Title: Other) Crest of Other: red gem.", *hits], 1
                    )
                )
                shown = f"<information>\n{lines}</information>"
            await conversation.observe(Message("user", (Text(shown),)))

    return asyncio.run(run())


def passages_of(sample, look):
    steps = sample.steps
    if len(steps) == 2:
        who = next(word for word in steps[0].split() if word[0].isupper())
        role, holder = steps[1].split()[0], steps[1].split()[-1]
        return {
            who: f"(Title: {who}) {who} is a baker. {who} serves {holder}, an old house.",
            holder: f"(Title: {holder}) {role.capitalize()} of {holder}: {look}.",
        }
    role, holder = steps[0].split()[0], steps[0].split()[-1]
    return {
        holder: (
            f"(Title: {holder}) {holder} is a town by the sea. {role.capitalize()} of "
            f"{holder}: {look}."
        )
    }


def test_a_fact_is_noted_as_the_passage_says_it(samples):
    sample = samples["one-hop"]
    look = read_meanings(sample)[sample.sample_id].target
    turns = play(NoisyExpert(0, NO_MISTAKES).converse(sample, 0), passages_of(sample, look))
    assert [type(parse_turn(turn).action) for turn in turns] == [Search, ShowFrame, Answer]
    role, _, holder = sample.steps[0].split()
    assert f"{role.capitalize()} of {holder}: {look}." in turns[1]
    assert look in turns[2]


def test_the_second_search_follows_from_what_the_first_one_told(samples):
    sample = samples["multi-hop"]
    look = read_meanings(sample)[sample.sample_id].target
    turns = play(NoisyExpert(0, NO_MISTAKES).converse(sample, 0), passages_of(sample, look))
    holder = sample.steps[1].split()[-1]
    assert [parse_turn(turn).action.query for turn in turns[:2]] == list(sample.steps)
    assert f"serves {holder} </thinking>" in turns[1]


def test_whoever_does_not_search_knows_no_clue(samples):
    sample = samples["relational"]
    meaning = read_meanings(sample)[sample.sample_id]
    turns = play(NoisyExpert(0, replace(NO_MISTAKES, no_search=1)).converse(sample, 0), {})
    assert [type(parse_turn(turn).action) for turn in turns] == [ShowFrame, Answer]
    assert meaning.clue not in turns[0]


def test_whoever_stops_half_way_knows_no_clue_either(samples):
    sample = samples["multi-hop"]
    look = read_meanings(sample)[sample.sample_id].target
    searches, frame, _ = play(
        NoisyExpert(0, replace(NO_MISTAKES, half_search=1)).converse(sample, 0),
        passages_of(sample, look),
    )
    assert parse_turn(searches).action.query == sample.steps[0]
    assert look not in frame


@pytest.mark.parametrize("rollout", range(6))
def test_a_wrong_search_says_only_what_the_question_says(samples, rollout):
    for ability in ("one-hop", "multi-hop", "relational"):
        sample = samples[ability]
        first = play(
            NoisyExpert(0, replace(NO_MISTAKES, wrong_search=1)).converse(sample, rollout),
            passages_of(sample, "red gem"),
        )[0]
        query = parse_turn(first).action.query
        assert query not in sample.steps
        assert {word for word in query.split() if word[0].isupper()} <= set(
            sample.question.replace("'", " ").split()
        )


def test_equal_arguments_give_equal_turns(samples):
    sample = samples["one-hop"]
    passages = passages_of(sample, "red gem")
    mistakes = MistakeRates(0.3, 0.3, 0.3, 0.3)
    runs = [
        [
            play(NoisyExpert(4, mistakes).converse(sample, rollout), passages)
            for rollout in range(12)
        ]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len({len(turns) for turns in runs[0]}) > 1


def test_other_data_is_refused(samples, tmp_path):
    sample = replace(samples["one-hop"], video_path=tmp_path / "a" / "b" / "c")
    with pytest.raises(UsageError, match="only knows the mini benchmark"):
        NoisyExpert(0).converse(sample, 0)


def test_a_target_in_the_last_corner_stays_in_the_image():
    corner = on_grid(
        TargetOnFrame(Norm1000Box(995, 992, 1000, 1000), Norm1000Point(998, 1000), 1.0, 1.0)
    )
    assert corner.box == Norm1000Box(1000 - COORDINATE_STEP, 1000 - COORDINATE_STEP, 1000, 1000)


low, high = st.floats(0, 1000), st.floats(0, 1000)


@given(st.tuples(low, high), st.tuples(low, high), st.floats(0, 1), st.floats(0, 1))
def test_the_grid_keeps_an_area_and_the_point_inside(xs, ys, along, down):
    (x1, x2), (y1, y2) = sorted(xs), sorted(ys)
    if not (x1 < x2 and y1 < y2):
        return
    point = Norm1000Point(
        min(max(x1 + along * (x2 - x1), x1), x2), min(max(y1 + down * (y2 - y1), y1), y2)
    )
    rounded = on_grid(TargetOnFrame(Norm1000Box(x1, y1, x2, y2), point, 0.5, 0.25))
    assert all(
        value % COORDINATE_STEP == 0
        for value in [*rounded.box.as_list(), rounded.point.x, rounded.point.y]
    )
    assert rounded.box.contains(rounded.point)
    assert (rounded.area, rounded.max_conn_area) == (0.5, 0.25)
    for before, after in zip((x1, y1, x2, y2), rounded.box.as_list(), strict=True):
        assert abs(after - before) <= 1.5 * COORDINATE_STEP
