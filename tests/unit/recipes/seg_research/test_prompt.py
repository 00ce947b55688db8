"""What the policy is told, and that a question cannot change it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.episode.action import FaultKind, FormatFault
from seg_research.recipes.seg_research.actions import Answer, Search, SelectKeyframe
from seg_research.recipes.seg_research.grammar import NO_FRAME, STOP_STRINGS, parse_turn
from seg_research.recipes.seg_research.prompt import (
    IMAGE_PLACEHOLDER,
    build_messages,
    fault_text,
    system_prompt,
    user_prompt,
)


def test_the_search_prompt_names_both_tools_and_all_three_forms():
    text = system_prompt(with_search=True)
    for needed in (
        "text_search",
        "image_search",
        "<information>",
        "<thinking>",
        *STOP_STRINGS,
        "0 to 1000",
        "bbox_2d",
        "point_2d",
    ):
        assert needed in text


def test_the_prompt_without_tools_never_mentions_searching():
    text = system_prompt(with_search=False)
    assert "search" not in text.lower()
    assert "<information>" not in text
    for needed in ("<thinking>", "</keyframe>", "</answer>", "0 to 1000"):
        assert needed in text


def test_the_forms_that_the_prompt_shows_are_read_by_the_parser():
    forms = re.findall(
        r"<thinking>.*?</(?:search|keyframe)>", system_prompt(with_search=True), re.DOTALL
    )
    assert [type(parse_turn(form).action) for form in forms] == [Search, SelectKeyframe]
    assert all(parse_turn(form).thinking for form in forms)


@pytest.mark.parametrize("with_search", [True, False])
def test_the_prompt_says_how_to_claim_that_the_target_is_absent_and_the_parser_takes_it(
    with_search,
):
    # The original tells the model to answer key frame -1 and then refuses it (findings B5c).
    assert f"or {NO_FRAME} if no frame shows the target" in system_prompt(with_search=with_search)
    assert parse_turn(f"<keyframe> {NO_FRAME} </keyframe>").action == Answer(())


def test_the_key_frame_form_has_no_brackets_to_imitate():
    # The original's "[integer frame_index]" made an untrained model write [2] in 28 of 128 rollouts
    # (findings B5c).
    assert re.search(r"<keyframe>[^<]*\[", system_prompt(with_search=True)) is None


def test_a_prompt_holds_no_placeholder_and_no_empty_paragraph_twice():
    for with_search in (True, False):
        for brief in (True, False):
            text = system_prompt(with_search=with_search, brief=brief)
            assert IMAGE_PLACEHOLDER not in text
            assert "\n\n\n" not in text
            assert text == text.strip()


def test_the_brief_prompt_is_brief():
    assert len(system_prompt(with_search=True, brief=True)) < 150
    assert "text_search" in system_prompt(with_search=True, brief=True)
    assert "search" not in system_prompt(with_search=False, brief=True)


def test_the_user_message_lists_frames_by_id_then_asks():
    assert (
        user_prompt("  Where is it?\n", [0, 25])
        == "frame 0 <image>\nframe 25 <image>\n\nWhere is it?"
    )


@given(
    st.text()
    | st.lists(st.sampled_from(["<image>", "frame 3 ", "<ima", "ge>", "\n"])).map("".join),
    st.lists(st.integers(0, 999), max_size=6),
)
def test_no_question_can_claim_a_picture(question, frame_ids):
    assert user_prompt(question, frame_ids).count(IMAGE_PLACEHOLDER) == len(frame_ids)


@pytest.mark.parametrize(
    ("ability", "has_tools"), [("one-hop", True), ("relational", True), ("in-video", False)]
)
def test_only_in_video_questions_get_the_prompt_without_tools(ability, has_tools):
    system, user = build_messages("Where?", ability, [1])
    assert (system["role"], user["role"]) == ("system", "user")
    assert ("text_search" in system["content"]) == has_tools
    assert user["content"] == user_prompt("Where?", [1])


@pytest.mark.parametrize("kind", FaultKind)
def test_a_fault_is_explained_in_one_line(kind):
    text = fault_text(FormatFault(kind, "the box has no area"))
    assert "the box has no area" in text
    assert "\n" not in text
