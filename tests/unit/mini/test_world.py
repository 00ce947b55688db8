"""Worlds of the mini benchmark: what they promise about visibility, ambiguity, knowledge and
repetition.
"""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.core.geometry import ImageSize
from seg_research.core.seeding import derive_seed
from seg_research.data.splits import SPLITS, Split
from seg_research.mini.backgrounds import CLASHES, Background
from seg_research.mini.figures import Shape
from seg_research.mini.motion import LARGEST, SMALLEST
from seg_research.mini.names import name_of
from seg_research.mini.questions import Ability
from seg_research.mini.sprites import Colour, Look, Pose, draw_sprite, fill_silhouette
from seg_research.mini.world import FRAME_SIZE, NUM_FRAMES, World, draw_world, render_image

NUM_WORLDS = 24


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [draw_world(3, Split.TRAIN, index) for index in range(NUM_WORLDS)]


@pytest.fixture(scope="module")
def labels_of(worlds):
    """Label maps (T, H, W) of the first six worlds at a quarter of the size, where shares of pixels
    are still exact enough.
    """
    small = ImageSize(FRAME_SIZE.width_px // 2, FRAME_SIZE.height_px // 2)
    return [
        np.stack([world.render(position, small).labels_HW for position in range(NUM_FRAMES)])
        for world in worlds[:6]
    ]


@given(st.integers(0, 10**9), st.integers(0, 10**6))
def test_a_name_belongs_to_one_split_whatever_its_number(seed, number):
    names = {split: name_of(seed, split, number) for split in SPLITS}
    assert len(set(names.values())) == 3
    assert all(
        name.isalpha() and name[0].isupper() and 4 <= len(name) <= 7 for name in names.values()
    )


def test_names_do_not_repeat_within_or_across_splits():
    names = [name_of(0, split, number) for split in SPLITS for number in range(3000)]
    assert len(set(names)) == len(names)


def test_names_are_no_words_of_the_texts():
    words = {
        word.lower()
        for split in SPLITS
        for number in range(3000)
        for word in [name_of(1, split, number)]
    }
    assert not words & {str(word) for kind in (Colour, Shape) for word in kind}


def test_a_world_is_the_same_every_time(worlds):
    assert draw_world(3, Split.TRAIN, 5) == worlds[5]
    again, first = draw_world(3, Split.TRAIN, 5).render(7), worlds[5].render(7)
    assert np.array_equal(again.rgb_HWC, first.rgb_HWC)
    assert np.array_equal(again.labels_HW, first.labels_HW)


def test_worlds_differ_by_seed_split_and_number(worlds):
    others = [draw_world(4, Split.TRAIN, 5), draw_world(3, Split.TEST, 5), worlds[6]]
    assert all(
        other.cast != worlds[5].cast and other.questions != worlds[5].questions for other in others
    )


def test_the_texts_of_seed_0_are_what_they_were():
    """A change here changes everybody's benchmark: raise `writer.VERSION` with it."""
    told = [
        [[q.text, q.target, q.steps, q.evidence] for q in world.questions]
        + [[p.title, p.text] for p in world.passages]
        for world in (draw_world(0, split, 0) for split in SPLITS)
    ]
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] == "b3648d88e79ed836"


def test_every_world_asks_one_question_of_each_ability(worlds):
    for world in worlds:
        assert [question.ability for question in world.questions] == list(Ability)
        assert len({question.target for question in world.questions}) == len(Ability)
        assert all(
            q.text.startswith("Please find '") and q.text.endswith("' in the provided video.")
            for q in world.questions
        )


def test_an_answer_takes_its_search_steps_and_the_evidence_tells_it(worlds):
    for world in worlds:
        for question in world.questions:
            passages = [world.passages[i] for i in question.evidence]
            assert (
                len(question.steps)
                == len(passages)
                == {"in-video": 0, "multi-hop": 2}.get(question.ability, 1)
            )
            assert all(
                passage.title in step
                for passage, step in zip(passages, question.steps, strict=True)
            )
            if question.ability in (Ability.ONE_HOP, Ability.MULTI_HOP):
                assert world.cast[question.target].look.words in passages[-1].text


def test_no_searched_question_says_what_the_target_looks_like(worlds):
    looks = [str(word) for kind in (Colour, Shape) for word in kind]
    for world in worlds:
        for question in world.questions:
            if question.steps:
                assert not set(looks) & set(question.text.replace("'", " ").split())


def test_the_first_hop_names_the_second_without_describing_it(worlds):
    for world in worlds:
        question = world.questions[list(Ability).index(Ability.MULTI_HOP)]
        first, second = (world.passages[i] for i in question.evidence)
        assert second.title in first.text
        assert second.title not in question.text
        assert not {str(word) for kind in (Colour, Shape) for word in kind} & set(
            first.text.replace(".", "").split()
        )


def test_names_bind_to_looks_at_random():
    looks = Counter(
        world.cast[world.questions[1].target].look.words
        for world in (draw_world(s, Split.TRAIN, 0) for s in range(NUM_WORLDS))
    )
    assert max(looks.values()) <= 4


def test_looks_in_one_video_are_distinct_and_stand_out(worlds):
    for world in worlds:
        looks = [actor.look for actor in world.cast]
        assert len(set(looks)) == len(looks)
        assert not {look.colour for look in looks} & CLASHES[world.background]


def test_expressions_fit_one_figure(worlds):
    for world in worlds:
        words = (
            world.questions[0]
            .text.removeprefix("Please find 'the ")
            .removesuffix("' in the provided video.")
        )
        target = world.cast[world.questions[0].target]
        by_words = {
            target.look.words: [a for a in world.cast if a.look.words == words],
            f"only {target.look.colour} thing": [
                a for a in world.cast if a.look.colour == target.look.colour
            ],
            f"only {target.look.shape}": [
                a for a in world.cast if a.look.shape == target.look.shape
            ],
            "largest thing": [a for a in world.cast if a.diameter > 0.9 * target.diameter],
            "smallest thing": [a for a in world.cast if a.diameter < 1.05 * target.diameter],
        }
        assert by_words[words] == [target]


def test_relations_fit_one_figure_besides_the_anchor(worlds):
    for world in worlds:
        question = world.questions[list(Ability).index(Ability.RELATIONAL)]
        target = world.cast[question.target]
        anchor = next(
            a for a in world.cast if a.look.words in world.passages[question.evidence[0]].text
        )
        assert anchor is not target
        if "colour" in question.text:
            assert [
                a for a in world.cast if a.look.colour == anchor.look.colour and a is not anchor
            ] == [target]
        elif "shape" in question.text:
            assert [
                a for a in world.cast if a.look.shape == anchor.look.shape and a is not anchor
            ] == [target]
        else:
            assert anchor.pair is not None
            assert anchor.pair == target.pair


def test_three_distractors_are_seen_in_every_frame(worlds, labels_of):
    for world, labels_THW in zip(worlds, labels_of, strict=False):
        for labels_HW in labels_THW:
            seen = {i for i in range(len(world.cast)) if np.count_nonzero(labels_HW == i + 1) > 60}
            assert all(len(seen - {question.target}) >= 3 for question in world.questions)


def test_targets_are_seen_on_evenly_offered_frames(worlds, labels_of):
    offered = np.linspace(0, NUM_FRAMES - 1, 6).astype(int)
    for world, labels_THW in zip(worlds, labels_of, strict=False):
        for question in world.questions:
            areas_T = (labels_THW == question.target + 1).sum(axis=(1, 2))
            assert (areas_T[offered] > 0.4 * areas_T.max()).sum() >= 2


def test_half_of_the_targets_are_away_for_a_while(worlds):
    diameters = [actor.diameter for world in worlds for actor in world.cast]
    assert min(diameters) >= SMALLEST
    assert max(diameters) <= LARGEST
    away = 0
    for world in worlds:
        for question in world.questions:
            path = world.cast[question.target].path
            places = [path.at(position / (NUM_FRAMES - 1)) for position in range(NUM_FRAMES)]
            away += any(not (0 < x < 4 / 3 and 0 < y < 1) for x, y in places)
    assert 0.25 <= away / (NUM_WORLDS * 4) <= 0.75


def test_figures_move_smoothly(worlds):
    for world in worlds:
        for actor in world.cast:
            places = np.array(
                [actor.path.at(position / (NUM_FRAMES - 1)) for position in range(NUM_FRAMES)]
            )
            steps_px = np.linalg.norm(np.diff(places, axis=0), axis=1) * FRAME_SIZE.height_px
            assert steps_px.max() < 16


def test_frame_ids_rise_and_often_leave_gaps(worlds):
    strides = {tuple(np.diff(world.frame_ids)) for world in worlds}
    assert all(min(stride) > 0 and len(set(stride)) == 1 for stride in strides)
    assert {stride[0] for stride in strides} == {1, 2, 3, 5}
    assert any(world.frame_ids[0] > 0 for world in worlds)


def test_backdrops_take_turns():
    assert {draw_world(0, Split.TEST, index).background for index in range(len(Background))} == set(
        Background
    )


def test_front_figures_hide_those_behind():
    red, blue = Look(Colour.RED, Shape.BALLOON), Look(Colour.BLUE, Shape.GEM)
    canvas = np.full((120, 160, 3), 128, np.float32)
    draw_sprite(canvas, red, Pose(0.66, 0.5, 0.5))
    draw_sprite(canvas, blue, Pose(0.66, 0.5, 0.3))
    r, g, b = canvas[60, 79]
    assert b > 1.3 * max(r, g)
    r, g, b = canvas[40, 79]
    assert r > 1.3 * max(g, b)


@pytest.mark.parametrize("shape", list(Shape))
def test_a_figure_is_as_large_as_its_diameter_and_moves_with_its_pose(shape):
    canvas = np.zeros((240, 320, 3), np.float32)
    window, alpha_HW = draw_sprite(canvas, Look(Colour.RED, shape), Pose(0.6, 0.45, 0.5))
    rows, columns = np.nonzero(alpha_HW > 0.5)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert abs(max(height, width) - 0.5 * 240) <= 3
    assert abs((rows.min() + rows.max()) / 2 + window[0].start - 0.45 * 240) <= 2
    assert abs((columns.min() + columns.max()) / 2 + window[1].start - 0.6 * 240) <= 2


@pytest.mark.parametrize("shape", list(Shape))
def test_the_cheap_silhouette_agrees_with_the_drawing(shape):
    pose = Pose(0.5, 0.5, 0.34, angle=0.3, mirrored=True)
    look = Look(Colour.GREEN, shape)
    cheap_HW, exact_HW = np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.float32)
    fill_silhouette(cheap_HW, look, pose, 1)
    window, alpha_HW = draw_sprite(np.zeros((240, 320, 3), np.float32), look, pose)
    exact_HW[window] = alpha_HW
    both, either = (
        ((cheap_HW > 0) & (exact_HW > 0.5)).sum(),
        ((cheap_HW > 0) | (exact_HW > 0.5)).sum(),
    )
    assert both / either > 0.72  # the drawing has an outline, the silhouette has none


def test_a_figure_outside_draws_nothing():
    canvas = np.full((60, 80, 3), 50, np.float32)
    assert draw_sprite(canvas, Look(Colour.RED, Shape.STAR), Pose(3.0, 0.5, 0.3)) is None
    assert (canvas == 50).all()


@pytest.mark.parametrize("colour", list(Colour))
def test_a_image_shows_its_colour_most(colour):
    image = render_image(Look(colour, Shape.BALLOON), seed=1).astype(float)
    middle = image[90:130, 118:150].reshape(-1, 3).mean(axis=0)
    reference = {
        c: render_image(Look(c, Shape.STAR), seed=derive_seed(2, c)).astype(float) for c in Colour
    }
    distance = {
        c: np.linalg.norm(image[110:140, 118:138].reshape(-1, 3).mean(axis=0) - middle)
        for c, image in reference.items()
    }
    assert min(distance, key=distance.__getitem__) == colour


def test_a_small_rendering_shows_what_the_large_one_shows(worlds):
    large, small = worlds[0].render(4), worlds[0].render(4, ImageSize(64, 64))
    shrunk = large.rgb_HWC[::2, ::2].astype(float)
    assert small.rgb_HWC.shape == (64, 64, 3)
    assert abs(shrunk.mean() - small.rgb_HWC.mean()) < 3
    for label in range(1, len(worlds[0].cast) + 1):
        assert abs((large.labels_HW == label).mean() - (small.labels_HW == label).mean()) < 0.01
