"""Examples are repeatable, use training names alone, look like episodes, and point where the
figures are.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_research.data.splits import SPLITS, Split
from seg_research.mini.expert_noise import NO_MISTAKES
from seg_research.mini.names import alike, name_of, split_of
from seg_research.mini.pretraining_data.clips import draw_clip, draw_clips
from seg_research.mini.pretraining_data.full_episodes import full_episode
from seg_research.mini.pretraining_data.grounding import (
    few_figures,
    frames_of_figures,
    many_figures,
)
from seg_research.mini.pretraining_data.passage_qa import exam_question, passage_qa
from seg_research.mini.pretraining_data.scenes import draw_labelled, draw_scene
from seg_research.mini.pretraining_data.training_example import SplitRandom, region
from seg_research.recipes.seg_research.actions import Answer, Search, ShowFrame
from seg_research.recipes.seg_research.grammar import parse_turn


@pytest.fixture(scope="module")
def clips():
    return [draw_clip(index) for index in range(3)]


def names_in(text):
    return {split_of(word) for word in re.findall(r"[A-Z][a-z]+", text)} - {None}


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.sampled_from(SPLITS), st.integers(-6, 6))
def test_the_split_of_a_name_does_not_depend_on_the_seed(seed, number, split, steps):
    name = name_of(seed, split, number)
    assert split_of(name) is split
    assert split_of(alike(name, steps)) is split


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**9))
def test_examples_use_training_names_alone_and_repeat(seed):
    assert names_in(passage_qa(SplitRandom(seed), 1500).text) == {Split.TRAIN}
    assert passage_qa(SplitRandom(seed), 1500).pieces == passage_qa(SplitRandom(seed), 1500).pieces


def test_an_examination_is_about_names_of_its_split_and_counts_looks_alone():
    draw = SplitRandom(0)
    draw.split = Split.TEST
    example = exam_question(draw)
    assert names_in(example.text) == {Split.TEST}
    assert all(len(text.split()) == 2 for text, weight in example.pieces if weight)


@pytest.mark.parametrize("seed", range(12))
def test_an_episode_parses_and_ends_with_the_truth(clips, seed):
    example = full_episode(SplitRandom(seed), clips)
    turns = [text for text, weight in example.pieces if weight]
    actions = [
        parse_turn(text.replace("<|im_end|>\n", "")).action
        for text in turns
        if "</thinking>" in text
    ]
    assert isinstance(actions[-1], Answer)
    assert isinstance(actions[-2], ShowFrame)
    assert all(isinstance(action, Search) for action in actions[:-2])
    assert len(example.images) == 5
    assert example.text.count("<|image_pad|>") == 4 * 16 + 36


def searches(example) -> int:
    return sum(
        text.startswith("<thinking>") and "<search>" in text
        for text, weight in example.pieces
        if weight
    )


def test_mistakes_is_as_often_as_asked(clips):
    straight = [searches(full_episode(SplitRandom(seed), clips)) for seed in range(200)]
    idle = [
        searches(full_episode(SplitRandom(seed), clips, replace(NO_MISTAKES, no_search=1)))
        for seed in range(200)
    ]
    halfway = [
        searches(full_episode(SplitRandom(seed), clips, replace(NO_MISTAKES, half_search=1)))
        for seed in range(200)
    ]
    busy = [
        searches(full_episode(SplitRandom(seed), clips, replace(NO_MISTAKES, extra_search=1)))
        for seed in range(200)
    ]
    assert idle == [0] * 200
    assert halfway == [min(1, count) for count in straight]
    assert busy == [count + 1 for count in straight]
    assert set(straight) == {0, 1, 2}


def test_whoever_guesses_gives_no_reason(clips):
    for seed in range(40):
        example = full_episode(
            SplitRandom(seed), clips, replace(NO_MISTAKES, no_search=1, half_search=1)
        )
        frame = next(text for text, weight in example.pieces if weight and "<keyframe>" in text)
        assert not re.search("of [A-Z]", frame)


@pytest.mark.parametrize(
    "make",
    [
        few_figures,
        lambda d: many_figures(d, [draw_clip(1)]),
        lambda d: frames_of_figures(d, [draw_clip(1)]),
    ],
)
def test_every_image_has_its_place_in_the_text(make):
    example = make(SplitRandom(5))
    assert example.text.count("<|image_pad|>") == sum(
        (image.shape[0] // 16) ** 2 for image in example.images
    )
    assert any(weight == 1 for _, weight in example.pieces)


def test_boxes_of_a_scene_hold_their_figures():
    image, labels_HW, looks = draw_labelled(SplitRandom(3), 3)
    again, found = draw_scene(SplitRandom(3), 3)
    assert np.array_equal(image, again)
    for place in found:
        number = looks.index(place.look) + 1
        rows, columns = np.nonzero(labels_HW == number)
        left, top, right, bottom = (v * 96 / 1000 for v in place.box)
        assert left <= columns.min() <= columns.max() < right
        assert top <= rows.min() <= rows.max() < bottom


@given(st.tuples(*[st.floats(0, 1000)] * 4), st.tuples(st.floats(0, 1000), st.floats(0, 1000)))
def test_any_region_is_a_valid_answer_on_the_grid(corners, point):
    (left, right), (top, bottom) = sorted(corners[:2]), sorted(corners[2:])
    text = region((left, top, right, bottom), point)
    assert isinstance(parse_turn(f"<answer> {text} </answer>").action, Answer)
    assert all(number % 20 == 0 for numbers in json.loads(text).values() for number in numbers)


def test_kept_clips_are_those_that_would_be_drawn(tmp_path, clips):
    store = tmp_path / "clips.pickle"
    first = draw_clips(2, store)
    kept = draw_clips(1, store)[0]
    assert np.array_equal(first[0].keyframes_THWC, clips[0].keyframes_THWC)
    assert np.array_equal(kept.boxes_TN4, clips[0].boxes_TN4)
