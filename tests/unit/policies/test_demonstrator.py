"""The demonstrator reads facts off the passages it is shown, says nothing it cannot know, and strays as often as it is told to."""

import asyncio
from dataclasses import replace

import pytest

from seg_research.core.errors import UsageError
from seg_research.core.transcript import Message, Text
from seg_research.datasets.parquet import read_samples
from seg_research.policies.demonstrator import Demonstrator, Straying, read_meanings
from seg_research.protocol.actions import Answer, Search, SelectKeyframe
from seg_research.protocol.parser import parse_turn

NEVER = Straying(0, 0, 0)


@pytest.fixture(scope="module")
def samples(mini):
    return {sample.ability: sample for sample in read_samples(mini.parquet("train")) if sample.truth and sample.truth.frames}


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
                lines = "".join(f"{rank}. {hit}\n" for rank, hit in enumerate(["(Title: Other) Crest of Other: red gem.", *hits], 1))
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
    return {holder: f"(Title: {holder}) {holder} is a town by the sea. {role.capitalize()} of {holder}: {look}."}


def test_a_fact_is_noted_as_the_passage_says_it(samples):
    sample = samples["one-hop"]
    look = read_meanings(sample)[sample.sample_id].target
    turns = play(Demonstrator(0, NEVER).converse(sample, 0), passages_of(sample, look))
    assert [type(parse_turn(turn).action) for turn in turns] == [Search, SelectKeyframe, Answer]
    role, _, holder = sample.steps[0].split()
    assert f"{role.capitalize()} of {holder}: {look}." in turns[1]
    assert look in turns[2]


def test_the_second_search_follows_from_what_the_first_one_told(samples):
    sample = samples["multi-hop"]
    look = read_meanings(sample)[sample.sample_id].target
    turns = play(Demonstrator(0, NEVER).converse(sample, 0), passages_of(sample, look))
    holder = sample.steps[1].split()[-1]
    assert [parse_turn(turn).action.query for turn in turns[:2]] == list(sample.steps)
    assert f"serves {holder} </thinking>" in turns[1]


def test_whoever_does_not_search_knows_no_clue(samples):
    sample = samples["relational"]
    meaning = read_meanings(sample)[sample.sample_id]
    turns = play(Demonstrator(0, Straying(1, 0, 0)).converse(sample, 0), {})
    assert [type(parse_turn(turn).action) for turn in turns] == [SelectKeyframe, Answer]
    assert meaning.clue not in turns[0]


@pytest.mark.parametrize("rollout", range(6))
def test_a_wrong_search_says_only_what_the_question_says(samples, rollout):
    for ability in ("one-hop", "multi-hop", "relational"):
        sample = samples[ability]
        first = play(Demonstrator(0, Straying(0, 1, 0)).converse(sample, rollout), passages_of(sample, "red gem"))[0]
        query = parse_turn(first).action.query
        assert query not in sample.steps
        assert {word for word in query.split() if word[0].isupper()} <= set(sample.question.replace("'", " ").split())


def test_equal_arguments_give_equal_turns(samples):
    sample = samples["one-hop"]
    passages = passages_of(sample, "red gem")
    straying = Straying(0.3, 0.3, 0.3)
    runs = [[play(Demonstrator(4, straying).converse(sample, rollout), passages) for rollout in range(12)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({len(turns) for turns in runs[0]}) > 1


def test_other_data_is_refused(samples, tmp_path):
    sample = replace(samples["one-hop"], video_path=tmp_path / "a" / "b" / "c")
    with pytest.raises(UsageError, match="only knows the mini benchmark"):
        Demonstrator(0).converse(sample, 0)
