"""Settings of an episode: from YAML, to a checkpoint and back, and every mistake named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.episode.limits import Limits
from seg_research.mini.tiny_settings import tiny_settings
from seg_research.recipes.registry import build_recipe, load_settings, settings_from
from seg_research.recipes.seg_research.recipe import OWN_TEXTS, SegResearch
from seg_research.recipes.seg_research.reward_settings import Preset, RewardSettings, Weights
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.recipes.settings import FILE_NAME, ViewSizes
from seg_research.search.settings import SearchSettings


def test_the_tiny_model_has_the_settings_of_its_yaml():
    tiny = tiny_settings()
    assert (tiny.brief_prompt, tiny.max_prompt_tokens, tiny.limits.max_response_tokens) == (
        True,
        512,
        768,
    )
    assert tiny.rewards == RewardSettings(dense=True)


settings = st.builds(
    SegResearchSettings,
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


def test_the_address_of_a_run_stays_with_the_run(tmp_path):
    values = SegResearchSettings(search=SearchSettings(url="http://127.0.0.1:1", browse=True))
    values.save(tmp_path)
    assert load_settings(tmp_path) == values.without_address()
    assert load_settings(tmp_path).search.browse


def test_a_model_without_settings_gets_the_published_ones(tmp_path):
    assert (
        load_settings(tmp_path)
        == load_settings(tmp_path / "no such folder")
        == SegResearchSettings()
    )


def test_settings_name_their_recipe():
    assert build_recipe(tiny_settings()).settings.brief_prompt
    with pytest.raises(UsageError, match="unknown recipe 'x'"):
        build_recipe(SegResearchSettings(recipe="x"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"brief": True},
            "here: brief: unknown key; there are: brief_prompt, limits, max_prompt_tokens, recipe, "
            "rewards, search, texts, view",
        ),
        (
            {"limits": {"max_tools": 3}},
            "here: limits.max_tools: unknown key; there are: max_faults",
        ),
        ({"view": {"keyframe": 3}}, "here: view.keyframe: unknown key; there are: keyframe_px"),
        ({"limits": 5}, "here: limits=5: Input should be an object"),
        ({"view": None}, "here: view=None: Input should be an object"),
        ({"limits": {"max_tool_calls": "six"}}, "here: limits.max_tool_calls='six': "),
        ({"limits": {"max_tool_calls": 6.5}}, "here: limits.max_tool_calls=6.5: "),
        ({"limits": {"max_tool_calls": True}}, "here: limits.max_tool_calls=True: "),
        ({"limits": {"max_tool_calls": 0}}, "here: limits.max_tool_calls=0: "),
        ({"limits": {"reserve_tokens": 9000}}, "here: limits: reserve_tokens=9000: expected less"),
        ({"brief_prompt": "no"}, "here: brief_prompt='no': "),
        ({"rewards": True}, "here: rewards=True: Input should be an object"),
        ({"rewards": {"mode": "exact"}}, "here: rewards.mode='exact': Input should be 'robust' or"),
        ({"rewards": {"mode": 1}}, "here: rewards.mode=1: Input should be 'robust' or"),
        ({"rewards": {"dense": 1}}, "here: rewards.dense=1: "),
        ({"rewards": {"p": True}}, "here: rewards.p=True: "),
        (
            {"rewards": {"weights": {"format": 1}}},
            "here: rewards.weights.format: unknown key; there are: box_iou, box_l1, keyframe",
        ),
        ({"rewards": {"weights": {"point": "1"}}}, "here: rewards.weights.point='1': "),
        ({"rewards": {"weights": {"point": -1}}}, "here: rewards.weights.point=-1: "),
        ({"recipe": None}, "here: recipe=None: expected a name"),
        ({"max_prompt_tokens": 0}, "here: max_prompt_tokens=0: "),
        ({"view": {"keyframe_px": 0}}, "here: view.keyframe_px=0: "),
        ({"search": {"top_k_text": 0}}, "here: search.top_k_text=0: "),
        ({"search": {"deadline_s": float("inf")}}, "here: search.deadline_s=inf: "),
        ({"texts": 5}, "here: texts=5: "),
        ("text", "here: expected keys and values, found 'text'"),
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


def test_settings_from_before_there_was_a_search_node_still_load(tmp_path):
    (tmp_path / FILE_NAME).write_text(
        json.dumps({"recipe": "seg_research", "brief_prompt": True, "view": {"keyframe_px": 96}})
    )
    loaded = load_settings(tmp_path)
    assert loaded == SegResearchSettings(brief_prompt=True, view=ViewSizes(keyframe_px=96))


def test_texts_travel_with_the_checkpoint(tmp_path):
    words = OWN_TEXTS.read_text(encoding="utf-8").replace("You find one target", "Seek one thing")
    (tmp_path / "mine.yaml").write_text(words)
    folder = tmp_path / "model"
    folder.mkdir()
    SegResearchSettings(texts=str(tmp_path / "mine.yaml")).save(folder)
    (tmp_path / "mine.yaml").unlink()
    recipe = build_recipe(load_settings(folder))
    assert recipe.system_text(with_search=True).startswith("Seek one thing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fault: ", "flaw: "), "flaw: unknown key; there are: brief_system, "),
        (("  shown: ", "  show: "), "show_frame.show: unknown key; there are: refused, shown"),
        (("$question", "$request"), "the place $question is missing"),
        (("Choose one of: $offered", "Choose $one"), "the place $offered is missing"),
        (("$rank. (Title: $title) $body", "$body $score"), "there is no value for $score"),
        (("That turn", "<|im_end|>That turn"), "<| and <image> are the chat template's own"),
        (("That turn", "For $ 5, that turn"), "write $$ for a dollar sign"),
        (("search:\n", "search: [\n"), "mine.yaml"),
    ],
)
def test_every_mistake_in_texts_is_named(tmp_path, change, message):
    words = OWN_TEXTS.read_text(encoding="utf-8")
    assert words.count(change[0]) >= 1
    (tmp_path / "mine.yaml").write_text(words.replace(*change))
    with pytest.raises(UsageError) as caught:
        SegResearch(SegResearchSettings(texts=str(tmp_path / "mine.yaml"))).texts  # noqa: B018
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_text_is_named(tmp_path):
    words = OWN_TEXTS.read_text(encoding="utf-8").replace('fault: "', '# fault: "')
    (tmp_path / "mine.yaml").write_text(words)
    with pytest.raises(UsageError, match=r"mine\.yaml: fault: missing"):
        SegResearch(SegResearchSettings(texts=str(tmp_path / "mine.yaml"))).texts  # noqa: B018
