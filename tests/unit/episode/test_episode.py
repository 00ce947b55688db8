"""The episode as a state machine: every way to stop, and every order of events that must not
happen.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_common.errors import InvariantError
from seg_research.data.sample import Sample
from seg_research.episode.action import FormatFault
from seg_research.episode.episode import Episode
from seg_research.episode.limits import Limits
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import (
    FinishReason,
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    TokenTrace,
)
from seg_research.recipes.seg_research.actions import Answer, Search, ShowFrame
from seg_research.recipes.seg_research.recipe import SegResearch

SEARCH = '<thinking> hm </thinking> <search> {"name": "text_search", "query": "Velmora"} </search>'
KEYFRAME = "<keyframe> 5 </keyframe>"
ANSWER = '<answer> {"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]} </answer>'
FAULT = "<keyframe> [5] </keyframe>"
SHOWN = Observation(Message("user", (Text("seen"),)), "tool", Outcome.OK)
PROMPT = (Message("user", (Text("Where?"),)),)


def start(**limits) -> Episode:
    return Episode(
        Sample("s", "Where?", Path("video"), ()), PROMPT, SegResearch().grammar, Limits(**limits)
    )


def say(episode: Episode, *texts: str) -> StopReason | None:
    """Say turns, each but the last followed by an observation."""
    for index, text in enumerate(texts):
        if index:
            episode.take_observation(SHOWN)
        episode.take_turn(Generation(text))
    return episode.stop


def test_an_action_is_handed_out_until_the_answer():
    episode = start()
    assert isinstance(episode.take_turn(Generation(SEARCH)), Search)
    episode.take_observation(SHOWN)
    assert isinstance(episode.take_turn(Generation(KEYFRAME)), ShowFrame)
    episode.take_observation(SHOWN)
    assert episode.take_turn(Generation(ANSWER)) is None
    assert episode.stop is StopReason.ANSWERED


@pytest.mark.parametrize(
    ("limits", "texts", "stop"),
    [
        ({}, [ANSWER], StopReason.ANSWERED),
        ({"max_tool_calls": 2}, [SEARCH, KEYFRAME, ANSWER], StopReason.ANSWERED),
        ({"max_tool_calls": 2}, [SEARCH, KEYFRAME, SEARCH], StopReason.TURN_LIMIT),
        ({"max_tool_calls": 1, "max_faults": 1}, [FAULT, ANSWER], StopReason.ANSWERED),
        ({"max_tool_calls": 1, "max_faults": 1}, [FAULT, SEARCH], StopReason.TURN_LIMIT),
        ({"max_faults": 2}, [FAULT, FAULT, ANSWER], StopReason.ANSWERED),
        ({"max_faults": 2}, [FAULT, SEARCH, FAULT, FAULT], StopReason.NO_ACTION),
        ({"max_faults": 0}, [FAULT], StopReason.NO_ACTION),
        ({"max_faults": 0}, [""], StopReason.NO_ACTION),
        ({}, [SEARCH] * 6, None),
        ({}, [SEARCH] * 7, StopReason.TURN_LIMIT),
    ],
)
def test_where_an_episode_stops(limits, texts, stop):
    assert say(start(**limits), *texts) is stop


def test_a_malformed_turn_is_handed_out_to_be_explained():
    assert isinstance(start().take_turn(Generation(FAULT)), FormatFault)


def test_a_turn_that_was_cut_short_ends_the_episode_unless_it_had_made_its_point():
    episode = start()
    assert episode.take_turn(Generation("<thinking> and then", FinishReason.LENGTH)) is None
    assert episode.stop is StopReason.TURN_TRUNCATED
    assert isinstance(start().take_turn(Generation(SEARCH, FinishReason.LENGTH)), Search)
    episode = start()
    episode.take_turn(Generation(ANSWER, FinishReason.LENGTH))
    assert episode.stop is StopReason.ANSWERED


def test_an_action_beyond_the_limit_is_recorded_but_not_handed_out():
    episode = start(max_tool_calls=1)
    say(episode, SEARCH)
    episode.take_observation(SHOWN)
    assert episode.take_turn(Generation(KEYFRAME)) is None
    last = episode.transcript().turns[-1]
    assert isinstance(last, ModelTurn)
    assert last.action == ShowFrame(5)


def test_a_turn_is_kept_with_everything_the_host_knew_about_it():
    episode = start()
    episode.take_turn(
        Generation(SEARCH, FinishReason.LENGTH, num_tokens=7, logprobs=(-0.5,), seconds=1.5)
    )
    episode.halt(StopReason.TOO_LONG)
    (turn,) = episode.transcript().model_turns
    assert (turn.text, turn.thinking, turn.finish) == (SEARCH, "hm", FinishReason.LENGTH)
    assert (turn.num_tokens, turn.logprobs, turn.seconds) == (7, (-0.5,), 1.5)


def test_what_cannot_be_written_down_is_replaced():
    episode = start()
    episode.take_turn(Generation(f"<thinking> \ud83d </thinking> {ANSWER}"))
    (turn,) = episode.transcript().model_turns
    assert (turn.text, turn.thinking) == (f"<thinking> ? </thinking> {ANSWER}", "?")


@pytest.mark.parametrize(
    "reason", [StopReason.TOO_LONG, StopReason.PROMPT_TOO_LONG, StopReason.INFRA]
)
def test_an_episode_can_be_halted_from_outside_with_the_cause(reason):
    episode = start()
    episode.halt(reason, "the disk is on fire")
    finished = episode.transcript(TokenTrace((1,), (2,), (1,), (0.0,)))
    assert (finished.stop, finished.error, finished.turns, finished.prompt) == (
        reason,
        "the disk is on fire",
        (),
        PROMPT,
    )
    assert finished.tokens is not None
    assert finished.tokens.response_ids == (2,)


def test_nothing_follows_the_stop():
    episode = start()
    say(episode, ANSWER)
    for late in (
        lambda: episode.take_turn(Generation(ANSWER)),
        lambda: episode.take_observation(SHOWN),
        lambda: episode.halt(StopReason.INFRA),
    ):
        with pytest.raises(InvariantError, match="sample s: the episode already stopped"):
            late()


def test_a_running_episode_has_no_transcript():
    with pytest.raises(InvariantError, match="still running"):
        start().transcript()


def test_turns_alternate():
    episode = start()
    with pytest.raises(InvariantError, match="must follow a model turn"):
        episode.take_observation(SHOWN)
    episode.take_turn(Generation(SEARCH))
    with pytest.raises(InvariantError, match="must follow an observation"):
        episode.take_turn(Generation(SEARCH))
    episode.take_observation(SHOWN)
    with pytest.raises(InvariantError, match="must follow a model turn"):
        episode.take_observation(SHOWN)


texts = st.sampled_from([SEARCH, KEYFRAME, ANSWER, FAULT, "", "<thinking>"]) | st.text(max_size=20)


@given(
    st.lists(st.builds(Generation, texts, st.sampled_from(FinishReason)), max_size=12),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_whatever_is_said_every_episode_ends_and_alternates(
    generations, max_tool_calls, max_faults
):
    episode = start(max_tool_calls=max_tool_calls, max_faults=max_faults)
    for generation in [*generations, *[Generation("")] * (max_faults + 1)]:
        action = episode.take_turn(generation)
        assert (action is None) == (episode.stop is not None)
        if action is None:
            break
        episode.take_observation(SHOWN)
    finished = episode.transcript()
    kinds = [isinstance(turn, ModelTurn) for turn in finished.turns]
    assert kinds == [index % 2 == 0 for index in range(len(kinds))]
    assert len(finished.model_turns) <= max_tool_calls + 1
    assert (
        sum(isinstance(turn.action, FormatFault) for turn in finished.model_turns) <= max_faults + 1
    )
    assert all(not isinstance(turn.action, Answer) for turn in finished.model_turns[:-1])
