"""Turns are objects: nothing said by a tool can be read as said by the policy."""

import dataclasses

import pytest
from PIL import Image

from seg_common.errors import InvariantError
from seg_research.episode.action import Action
from seg_research.episode.transcript import (
    FinishReason,
    ImageRef,
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    TokenTrace,
    Transcript,
)


def picture(name: str) -> ImageRef:
    return ImageRef(Image.new("RGB", (2, 2)), name)


def observation(*parts: Text | ImageRef) -> Observation:
    return Observation(Message("user", parts), "search", Outcome.OK)


FIRST, SECOND = ModelTurn("first", Action()), ModelTurn("second", Action())
SHOWN = observation(Text("found "), picture("found.jpg"))
PROMPT = (
    Message("system", (Text("find it"),)),
    Message("user", (picture("a.jpg"), Text(" and "), picture("b.jpg"))),
)
TRANSCRIPT = Transcript("s", PROMPT, (FIRST, SHOWN, SECOND), StopReason.NO_ACTION)


def test_model_turns_and_observations_are_told_apart():
    assert TRANSCRIPT.model_turns == (FIRST, SECOND)
    assert TRANSCRIPT.observations == (SHOWN,)


def test_exchanges_pair_each_model_turn_with_what_it_led_to():
    assert list(TRANSCRIPT.exchanges()) == [(FIRST, SHOWN), (SECOND, None)]
    assert list(dataclasses.replace(TRANSCRIPT, turns=(FIRST, SHOWN)).exchanges()) == [
        (FIRST, SHOWN)
    ]
    assert list(dataclasses.replace(TRANSCRIPT, turns=()).exchanges()) == []


def test_pictures_come_in_the_order_of_their_tokens():
    assert [image.source for image in TRANSCRIPT.images] == ["a.jpg", "b.jpg", "found.jpg"]


def test_a_message_is_written_with_placeholders():
    assert PROMPT[1].plain() == "<image> and <image>"
    assert [image.source for image in PROMPT[1].images] == ["a.jpg", "b.jpg"]


def test_pixels_take_no_part_in_equality_or_in_the_printed_form():
    assert picture("a.jpg") == ImageRef(Image.new("RGB", (9, 9)), "a.jpg")
    assert "PIL" not in repr(picture("a.jpg"))


def test_a_transcript_cannot_be_changed_afterwards():
    for value, name in (
        (TRANSCRIPT, "stop"),
        (FIRST, "text"),
        (SHOWN, "outcome"),
        (PROMPT[0], "role"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, "changed")


@pytest.mark.parametrize("lengths", [(2, 1, 2), (2, 2, 1), (1, 2, 2)])
def test_a_trace_whose_parts_differ_in_length_is_our_bug(lengths):
    ids, mask, logprobs = lengths
    with pytest.raises(InvariantError, match=r"lengths \(\d, \d, \d\)"):
        TokenTrace((1,), (5,) * ids, (1,) * mask, (0.0,) * logprobs)


def test_statuses_are_written_as_plain_words():
    assert [f"{StopReason.TURN_LIMIT}", f"{Outcome.EMPTY}", f"{FinishReason.LENGTH}"] == [
        "turn_limit",
        "empty",
        "length",
    ]
