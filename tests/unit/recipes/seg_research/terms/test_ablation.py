"""The process terms that the published method was compared with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.data.sample import GroundTruth
from seg_research.episode.action import FormatFault
from seg_research.episode.transcript import (
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    Transcript,
)
from seg_research.recipes.seg_research.actions import (
    Answer,
    FaultKind,
    ObjectRegion,
    Search,
    SearchKind,
    ShowFrame,
)
from seg_research.recipes.seg_research.terms.ablation import (
    BinaryProcess,
    DenseImitation,
    LinearProcess,
)
from seg_research.rewards.similarity import Similarity
from seg_research.testing.fakes import WordEncoder

ANSWER = Answer((ObjectRegion(Norm1000Box(1, 2, 3, 4), (Norm1000Point(2, 3),)),))
ABSENT = Answer(())
FRAME = ShowFrame(3)
A, B, C = (
    Search(SearchKind.TEXT, query)
    for query in ("colour of Velmora", "crest of Babir", "height of Orun")
)
FAULT = FormatFault(FaultKind.BAD_FRAME, "write only the frame number")
STEPS = GroundTruth(steps=("colour of Velmora", "crest of Babir"))


def transcript(*actions, outcome=Outcome.OK, thinking="because") -> Transcript:
    turns = []
    for number, action in enumerate(actions):
        turns.append(ModelTurn("…", action, thinking))
        if not isinstance(action, Answer):
            seen = outcome if isinstance(action, Search) else Outcome.OK
            turns.append(Observation(Message("user", (Text(f"page {number}"),)), "tool", seen))
    return Transcript("s", (), tuple(turns), StopReason.ANSWERED)


@pytest.mark.parametrize(
    ("actions", "value"),
    [
        ((FRAME, ANSWER), 1),
        ((A, FRAME, ANSWER), 1),
        ((A, B, A, FRAME, ANSWER), 1),
        ((ABSENT,), 1),
        ((A, ABSENT), 1),
        ((A, FRAME, B, ANSWER), 0),
        ((FRAME, FRAME, ANSWER), 0),
        ((ANSWER,), 0),
        ((A, ANSWER), 0),
        ((A, FRAME), 0),
        ((FAULT, FRAME, ANSWER), 0),
        ((A, B), 0),
        ((), 0),
    ],
)
def test_the_binary_term_wants_searches_then_a_frame_then_the_answer(actions, value):
    assert BinaryProcess()(transcript(*actions)) == value
    assert BinaryProcess()(transcript(*actions, thinking="")) == 0


@pytest.mark.parametrize(
    ("actions", "value"),
    [
        ((A, B, FRAME, ANSWER), 1),
        ((A, B, C, FRAME, ANSWER), 1),
        ((A, A, FRAME, ANSWER), 2 / 3),
        ((A, FRAME, ANSWER), 2 / 3),
        ((A, ANSWER), 1 / 3),
        ((FRAME, ANSWER), 1 / 3),
        ((A, B, FRAME), 0),
    ],
)
def test_the_linear_term_pays_each_useful_search_the_same(actions, value):
    assert LinearProcess()(transcript(*actions), STEPS) == pytest.approx(value)


def test_the_linear_term_without_known_steps_is_bounded_by_the_budget():
    assert LinearProcess(budget=3)(transcript(A, FRAME, ANSWER), GroundTruth()) == pytest.approx(
        2 / 4
    )
    assert LinearProcess(budget=0)(transcript(A, FRAME, ANSWER), GroundTruth()) == 1


@pytest.mark.parametrize(
    ("actions", "value"),
    [
        ((A, B, FRAME, ANSWER), 1),
        ((A, FRAME, ANSWER), 0.5),
        ((B, A, FRAME, ANSWER), 0),
        ((C, B, FRAME, ANSWER), 0.5),
        ((A, A, B, FRAME, ANSWER), 1),
        ((A, B, C, C, FRAME, ANSWER), 1),
        ((FRAME, ANSWER), 0),
        ((A, B, FRAME), 0),
    ],
)
def test_imitation_compares_each_search_with_the_step_of_its_position(actions, value):
    assert DenseImitation(Similarity(WordEncoder()))(transcript(*actions), STEPS) == value


def test_imitation_of_nothing_is_unscored_and_searches_without_result_do_not_count():
    term = DenseImitation(Similarity(WordEncoder()))
    assert term(transcript(A, FRAME, ANSWER), GroundTruth()) is None
    assert term(transcript(A, B, FRAME, ANSWER, outcome=Outcome.EMPTY), STEPS) == 0


def test_the_threshold_of_imitation_is_exclusive():
    same = transcript(A, B, FRAME, ANSWER)
    assert DenseImitation(Similarity(WordEncoder()), threshold=0.99)(same, STEPS) == 1
    assert DenseImitation(Similarity(WordEncoder()), threshold=1.0)(same, STEPS) == 0


LASTS = st.sampled_from([(), (ANSWER,), (ABSENT,)])


@given(
    st.lists(st.sampled_from([A, B, C, FRAME, FAULT]), max_size=12), LASTS, st.sampled_from(Outcome)
)
def test_every_term_lies_between_0_and_1(actions, last, outcome):
    episode = transcript(*actions, *last, outcome=outcome)
    for term in (
        BinaryProcess(),
        LinearProcess(),
        LinearProcess(budget=0),
        DenseImitation(Similarity(WordEncoder())),
    ):
        value = term(episode, STEPS)
        assert 0 <= value <= 1
        assert last or value == 0
