"""Settings of an episode: from YAML, to a checkpoint and back, and every mistake named."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import seg_research
from seg_common.errors import UsageError
from seg_research.episode.limits import Limits
from seg_research.recipes.recipe import ViewSizes
from seg_research.recipes.seg_research.reward_settings import Preset, RewardSettings, Weights
from seg_research.recipes.settings import (
    FILE_NAME,
    EpisodeSettings,
    load_settings,
    settings_from,
    tiny_settings,
)

CONFIGS = Path(seg_research.__file__).parent / "configs"


def test_the_yaml_of_the_tiny_model_and_its_settings_say_the_same():
    chosen = yaml.safe_load((CONFIGS / "model" / "tiny.yaml").read_text(encoding="utf-8"))
    episode = chosen["seg"]["episode"]
    # The trainer's own keys fill these two in by interpolation (configs/seg.yaml).
    episode["max_prompt_tokens"] = chosen["data"]["max_prompt_length"]
    episode["limits"]["max_response_tokens"] = chosen["data"]["max_response_length"]
    assert settings_from(episode, "tiny.yaml") == tiny_settings()


def test_the_yaml_of_every_run_and_the_defaults_say_the_same():
    episode = yaml.safe_load((CONFIGS / "seg.yaml").read_text(encoding="utf-8"))["episode"]
    assert episode.pop("max_prompt_tokens") == "${data.max_prompt_length}"
    assert episode["limits"].pop("max_response_tokens") == "${data.max_response_length}"
    assert settings_from(episode, "seg.yaml") == EpisodeSettings()


settings = st.builds(
    EpisodeSettings,
    brief_prompt=st.booleans(),
    max_prompt_tokens=st.integers(1, 10**6),
    limits=st.builds(
        Limits,
        st.integers(1, 50),
        st.integers(0, 9),
        st.integers(1, 9999),
        st.integers(1000, 9999),
        st.integers(1, 999),
    ),
    view=st.builds(ViewSizes, st.integers(1, 2000), st.integers(1, 2000)),
    rewards=st.builds(
        RewardSettings,
        preset=st.sampled_from(Preset),
        dense=st.booleans(),
        p=st.floats(0, 1, exclude_min=True, exclude_max=True),
        weights=st.builds(Weights, st.floats(0.1, 9), process=st.floats(0, 9)),
    ),
)


@given(settings)
def test_settings_survive_the_way_to_a_checkpoint_and_back(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("model")
    values.save(folder)
    assert load_settings(folder) == values


def test_a_model_without_settings_gets_the_published_ones(tmp_path):
    assert (
        load_settings(tmp_path) == load_settings(tmp_path / "no such folder") == EpisodeSettings()
    )


def test_settings_name_their_recipe():
    assert tiny_settings().build_recipe().brief_prompt
    with pytest.raises(UsageError, match="unknown recipe 'x'"):
        EpisodeSettings(recipe="x").build_recipe()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"brief": True},
            "here: unknown key 'brief'; there are: brief_prompt, limits, max_prompt_tokens, recipe, rewards, view",
        ),
        (
            {"limits": {"max_tools": 3}},
            "here: limits: unknown key 'max_tools'; there are: max_faults",
        ),
        ({"view": {"keyframe": 3}}, "here: view: unknown key 'keyframe'; there are: keyframe_px"),
        ({"limits": 5}, "here: limits: expected keys and values, found 5"),
        ({"view": None}, "here: view: expected keys and values, found None"),
        ({"limits": {"max_tool_calls": "six"}}, "here: limits: max_tool_calls='six': expected int"),
        ({"limits": {"max_tool_calls": 6.5}}, "here: limits: max_tool_calls=6.5: expected int"),
        ({"limits": {"max_tool_calls": True}}, "here: limits: max_tool_calls=True: expected int"),
        ({"limits": {"max_tool_calls": 0}}, "expected max_tool_calls >= 1"),
        ({"brief_prompt": "no"}, "here: brief_prompt='no': expected bool"),
        ({"rewards": True}, "here: rewards: expected keys and values, found True"),
        (
            {"rewards": {"mode": "exact"}},
            "here: rewards: mode='exact': expected one of robust, compat",
        ),
        ({"rewards": {"mode": 1}}, "here: rewards: mode=1: expected Mode"),
        ({"rewards": {"dense": 1}}, "here: rewards: dense=1: expected bool"),
        ({"rewards": {"p": True}}, "here: rewards: p=True: expected float"),
        (
            {"rewards": {"weights": {"format": 1}}},
            "here: rewards: weights: unknown key 'format'; there are: box_iou, box_l1, keyframe",
        ),
        (
            {"rewards": {"weights": {"point": "1"}}},
            "here: rewards: weights: point='1': expected float",
        ),
        ({"recipe": None}, "here: recipe=None: expected str"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens=0: expected 1 or more"),
        ({"view": {"keyframe_px": 0}}, "expected sides of 1 pixel or more"),
    ],
)
def test_every_mistake_is_named_with_its_place(values, message):
    with pytest.raises(UsageError) as caught:
        settings_from(values, "here")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        "[[1, 2]]",
        '{"limits": [1]}',
        '{"limits": {"max_tool_calls": NaN}}',
        "[" * 10_000,
    ],
)
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(UsageError, match=f"{FILE_NAME}"):
        load_settings(tmp_path)


def test_a_wrong_key_in_a_file_is_told_once(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps({"turbo": 1}))
    with pytest.raises(UsageError) as caught:
        load_settings(tmp_path)
    assert str(caught.value).count(FILE_NAME) == 1


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=FILE_NAME):
        load_settings(tmp_path)
