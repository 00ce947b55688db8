"""The verdict: the last key frame that was really shown, and the answer that followed it."""

import pytest

from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.prediction import PredictedObject, Prediction
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
from seg_research.recipes.seg_research.final_answer import (
    Verdict,
    count_searches,
    final,
    read_verdict,
)

ANSWER = Answer((ObjectRegion(Norm1000Box(1, 2, 3, 4), (Norm1000Point(2, 3),)),))
LOOK = Search(SearchKind.TEXT, "Velmora")
FAULT = FormatFault(FaultKind.BAD_FRAME, "write only the frame number")


def transcript(*exchanges) -> Transcript:
    """Build from actions and (action, outcome) pairs; an action alone gets no observation."""
    turns = []
    for exchange in exchanges:
        action, outcome = exchange if isinstance(exchange, tuple) else (exchange, None)
        turns.append(ModelTurn("…", action, "because"))
        if outcome is not None:
            turns.append(
                Observation(Message("user", (Text("<keyframe> 99 </keyframe>"),)), "tool", outcome)
            )
    return Transcript("s", (), tuple(turns), StopReason.ANSWERED)


def frame(frame_id: int, outcome: Outcome = Outcome.OK):
    return ShowFrame(frame_id), outcome


@pytest.mark.parametrize(
    ("exchanges", "keyframe", "answered"),
    [
        ((), None, False),
        ((frame(3), ANSWER), 3, True),
        ((frame(3),), 3, False),
        ((ANSWER,), None, True),
        ((frame(3), frame(5), ANSWER), 5, True),
        ((frame(3, Outcome.REJECTED), frame(5), ANSWER), 5, True),
        ((frame(3), frame(5, Outcome.REJECTED), ANSWER), 3, True),
        ((frame(3, Outcome.REJECTED), ANSWER), None, True),
        (((Answer(()), Outcome.REJECTED), frame(5), ANSWER), 5, True),
        ((ShowFrame(3),), None, False),
        (((LOOK, Outcome.OK), ANSWER), None, True),
        (((FAULT, Outcome.FAULT), frame(3), (LOOK, Outcome.EMPTY), ANSWER), 3, True),
    ],
)
def test_the_verdict(exchanges, keyframe, answered):
    assert read_verdict(transcript(*exchanges)) == Verdict(keyframe, ANSWER if answered else None)


@pytest.mark.parametrize(
    ("exchanges", "says_absent", "is_complete"),
    [
        ((), False, False),
        ((frame(3),), False, False),
        ((ANSWER,), False, False),
        ((frame(3), ANSWER), False, True),
        ((Answer(()),), True, True),
        ((frame(3), Answer(())), True, True),
        ((Answer(()), frame(3), ANSWER), True, True),
    ],
)
def test_a_verdict_is_complete_with_a_place_or_the_claim_that_there_is_none(
    exchanges, says_absent, is_complete
):
    verdict = read_verdict(transcript(*exchanges))
    assert (verdict.says_absent, verdict.is_complete) == (says_absent, is_complete)


def test_a_key_frame_after_the_answer_is_too_late():
    assert read_verdict(transcript(ANSWER, frame(3))) == Verdict(None, ANSWER)


@pytest.mark.parametrize(
    ("exchanges", "expected"),
    [
        ((), Prediction()),
        ((frame(3),), Prediction(keyframe_id=3)),
        ((ANSWER,), Prediction(answered=True)),
        ((Answer(()),), Prediction(answered=True, absent=True)),
        ((frame(3), Answer(())), Prediction(answered=True, absent=True, keyframe_id=3)),
        (
            (frame(3), ANSWER),
            Prediction(
                (PredictedObject(3, Norm1000Box(1, 2, 3, 4), (Norm1000Point(2, 3),)),),
                answered=True,
                keyframe_id=3,
            ),
        ),
    ],
)
def test_the_prediction_locates_the_answer_on_the_key_frame(exchanges, expected):
    assert final(transcript(*exchanges)) == expected


def test_the_prediction_is_complete_where_the_verdict_is():
    for exchanges in ((), (frame(3),), (ANSWER,), (frame(3), ANSWER), (Answer(()),)):
        seen = transcript(*exchanges)
        assert final(seen).is_complete == read_verdict(seen).is_complete


def test_searches_are_counted_when_they_reached_the_tool():
    seen = transcript(
        (LOOK, Outcome.OK),
        (LOOK, Outcome.EMPTY),
        (LOOK, Outcome.REJECTED),
        (FAULT, Outcome.FAULT),
        frame(3),
        LOOK,
    )
    assert count_searches(seen) == 3
    assert count_searches(transcript()) == 0
