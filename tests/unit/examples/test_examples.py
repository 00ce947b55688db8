"""The examples of docs/training.md do what they say, and are short."""

import asyncio
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_common.errors import UsageError
from seg_research.data.rows import check_paths, read_samples
from seg_research.episode.transcript import Outcome
from seg_research.recipes.registry import build_recipe, find_recipe
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.testing.fakes import play
from seg_research.testing.samples import draw_sample

EXAMPLES = Path(__file__).parents[3] / "examples"
ANSWER = (
    '<thinking> there </thinking>\n<answer> {"bbox_2d": [10, 10, 500, 500], "point_2d": '
    "[100, "
    "100]} </answer>"
)
KEYFRAME = "<thinking> it shows best there </thinking>\n<keyframe> 0 </keyframe>"


@pytest.fixture
def examples(monkeypatch):
    """Let Python find the examples, as PYTHONPATH=examples does."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.invalidate_caches()


@pytest.mark.parametrize("name", ["own_data", "own_tool", "own_reward"])
def test_an_example_is_short(name):
    lines = [line for line in (EXAMPLES / f"{name}.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 60


def test_ones_own_reward_is_paid_beside_the_others(examples, tmp_path):
    settings = SegResearchSettings(recipe="own_reward:OwnReward")
    sample = draw_sample(tmp_path)
    brief = asyncio.run(play(sample, [KEYFRAME, ANSWER], settings=settings))
    wordy = asyncio.run(
        play(sample, [KEYFRAME, ANSWER.replace("there", "word " * 500)], settings=settings)
    )
    silent = asyncio.run(play(sample, [], settings=settings))
    rubric = build_recipe(settings).rubric
    assert rubric.score(brief, sample.truth).paid["short_thoughts"] == pytest.approx(0.2)
    assert 0 < rubric.score(wordy, sample.truth).paid["short_thoughts"] < 0.1
    assert rubric.score(silent, sample.truth).paid["short_thoughts"] == 0
    published = find_recipe("seg_research").rubric.score(brief, sample.truth)
    assert rubric.score(brief, sample.truth).total == pytest.approx(published.total + 0.2)


def test_ones_own_tool_is_told_read_and_carried_out(examples, tmp_path):
    settings = SegResearchSettings(recipe="own_tool:OwnTool")
    sample = draw_sample(tmp_path)
    ask = "<thinking> is it long? </thinking> <length></length>"
    transcript = asyncio.run(play(sample, [ask, KEYFRAME, ANSWER], settings=settings))
    assert "<length></length>" in transcript.prompt[0].plain()
    observation = transcript.observations[0]
    assert observation.outcome is Outcome.OK
    assert (
        observation.message.plain()
        == f"The video has {len(list(sample.video_path.glob('*.jpg')))} frames."
    )
    assert "</length>" in build_recipe(settings).grammar.stop_strings
    assert build_recipe(settings).rubric.score(transcript, sample.truth).terms["format"] == 1
    assert "<length>" not in asyncio.run(play(sample, [ANSWER])).prompt[0].plain()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module:recipe", "PYTHONPATH"),
        ("own_tool:nothing", "has no recipe class nothing"),
        ("mine", "package.module:Class"),
    ],
)
def test_a_recipe_that_is_not_there_is_told(examples, name, told):
    with pytest.raises(UsageError, match=told):
        find_recipe(name)


def test_ones_own_videos_become_samples(tmp_path):
    for number in range(8):
        frame, mask = np.full((48, 64, 3), 90, np.uint8), np.zeros((48, 64), np.uint8)
        mask[10:30, 5 + number : 25 + number] = 255
        frame[mask > 0] = (20, 40, 220)
        for folder, suffix, image in (("frames", "jpg", frame), ("masks", "png", mask)):
            (tmp_path / "bird" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "bird" / folder / f"{number:05d}.{suffix}"), image)
    rows = [
        {
            "id": "bird",
            "question": "the bird of the island?",
            "frames": "bird/frames",
            "masks": "bird/masks",
            "steps": ["island bird"],
        }
    ]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    command = [
        sys.executable,
        EXAMPLES / "own_data.py",
        tmp_path / "questions.json",
        tmp_path / "mine",
        "--max_size",
        "64",
        "--min_size",
        "64",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (sample,) = read_samples(tmp_path / "mine" / "train_6_64_64.parquet")
    check_paths([sample])
    assert sample.truth is not None
    assert sample.steps == ("island bird",)
    assert len(sample.frames) == len(sample.truth.single().frames) == 6


@pytest.mark.parametrize(("name", "kind"), [("own_tool", "OwnTool"), ("own_reward", "OwnReward")])
def test_a_run_takes_the_recipe_by_its_place(examples, name, kind):
    pytest.importorskip("verl", reason="verl comes with the train extra")
    from seg_research.training.launch.checks import check_against_verl
    from seg_research.training.launch.config import compose_config, episode_settings

    given = {
        "data.train_files": "a",
        "data.val_files": "b",
        "actor_rollout_ref.model.path": "m",
        "seg.search.url": "http://a:1",
    }
    config = compose_config(
        [*(f"{key}={value}" for key, value in given.items()), f"seg.episode.recipe={name}:{kind}"]
    )
    check_against_verl(config)
    assert build_recipe(episode_settings(config)).rubric.terms
    with pytest.raises(UsageError, match="PYTHONPATH"):
        check_against_verl(
            compose_config(
                [
                    *(f"{key}={value}" for key, value in given.items()),
                    f"seg.episode.recipe=no_{name}:{kind}",
                ]
            )
        )
