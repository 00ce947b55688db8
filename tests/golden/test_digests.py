"""What must not change by accident: rows, tokens, scores, advantages and masks with fixed seeds.

`digests.json` holds a hash of each and a few numbers that show how far a change reaches. Where a
change is meant, write the file again and say in the commit why:

    WRITE_DIGESTS=1 pytest tests/golden/test_digests.py

Hashes of pixels are compared only with the versions of OpenCV and Pillow that wrote them.
"""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg_research.data.rows import read_samples
from seg_research.episode.run import run_episode
from seg_research.mini import COLD_START
from seg_research.mini.noisy_expert import NoisyExpert
from seg_research.recipes.registry import build_recipe, find_recipe, load_settings
from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.turns import expert_turns
from seg_research.records.reader import read_predictions, read_rollout
from seg_research.rewards.grouping import (
    PUBLISHED,
    GroupSettings,
    Scale,
    group_advantages,
)
from seg_research.search.client import SearchHit, SearchOutcome
from seg_research.testing.attacks import ATTACKS, play_attack
from seg_research.testing.fakes import WordEncoder, start_episode
from seg_research.testing.samples import draw_sample

STORED = Path(__file__).with_name("digests.json")
DATA = Path(__file__).parents[3] / "shared" / "data"
PIXEL_VERSIONS = {name: version(name) for name in ("opencv-python-headless", "pillow")}
DIGITS = 9

needs_recordings = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"{DATA} is not there: it comes with the project's shared folder"
)


def plain(value: Any) -> Any:
    """Round numbers, so that the last digits of another CPU are no difference."""
    match value:
        case bool() | None | str() | int():
            return value
        case float():
            return round(value, DIGITS) + 0.0
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case _:
            return [plain(inner) for inner in value]


def digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(plain(value), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:20]


def compare(group: str, found: dict[str, Any]) -> None:
    """Compare a group of digests and numbers with the stored ones, or store them."""
    stored = json.loads(STORED.read_text()) if STORED.is_file() else {}
    if os.environ.get("WRITE_DIGESTS"):
        written = {**stored, "pixel versions": PIXEL_VERSIONS, group: plain(found)}
        STORED.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
        return
    assert plain(found) == stored[group]


def skip_pixels_of_other_versions() -> None:
    stored = json.loads(STORED.read_text())["pixel versions"] if STORED.is_file() else {}
    if not os.environ.get("WRITE_DIGESTS") and stored != PIXEL_VERSIONS:
        pytest.skip(f"the hashes were written with {stored}, here is {PIXEL_VERSIONS}")


class WordSearch:
    """Finds the passages or images that share most words with a query."""

    def __init__(self, mini) -> None:
        lines = [json.loads(line) for line in mini.text.read_text().splitlines()]
        self.passages = [line["contents"].partition("\n")[::2] for line in lines]

    async def search(self, query: str, kind: str, top_k: int) -> SearchOutcome:
        wanted = set(query.casefold().split())
        ranked = sorted(
            self.passages, key=lambda p: -len(wanted & set(f"{p[0]} {p[1]}".casefold().split()))
        )
        hits = tuple(SearchHit(title, text, 1.0, title) for title, text in ranked[:top_k])
        return SearchOutcome(hits)


@pytest.fixture(scope="module")
def samples(mini) -> list:
    return read_samples(mini.parquet("test"))


def truth_of(sample) -> dict[str, Any]:
    return {
        frame_id: [t.box.as_list(), t.point.x, t.point.y, t.area, t.max_conn_area]
        for frame_id, t in sample.truth.single().frames.items()
    }


def test_prepared_rows(mini):
    rows = {
        sample.sample_id: {
            "question": sample.question,
            "ability": str(sample.ability),
            "frames": [[f.frame_id, f.path.name, *f.shown_size] for f in sample.frames],
            "steps": sample.steps,
            "truth": truth_of(sample),
        }
        for split in ("train", "val", "test")
        for sample in read_samples(mini.parquet(split))
    }
    compare("rows", {name: digest(row) for name, row in rows.items()})


def test_frames_of_the_mini_benchmark(mini):
    skip_pixels_of_other_versions()
    files = sorted(path for path in mini.root.rglob("*") if path.suffix in {".jpg", ".png"})
    found = digest(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files))
    compare("frames", {"files": len(files), "bytes": found})


async def test_tokens_and_rewards_of_scripted_episodes(mini, samples):
    pytest.importorskip("transformers", reason="the tokenizer needs the train extra")
    from seg_research.policies.processor import load_processor
    from seg_research.testing.teacher import TeacherConversation

    processor, settings = load_processor(COLD_START), load_settings(COLD_START)
    recipe = build_recipe(settings)
    tools = recipe.connect(WordSearch(mini))
    demonstrator = NoisyExpert(seed=1)
    found = {}
    for sample in samples:
        rehearsal = await run_episode(
            start_episode(recipe, sample), demonstrator.converse(sample, 0), tools
        )
        scripts = {
            "expert": expert_turns(sample),
            "demonstrator": [turn.text for turn in rehearsal.model_turns],
        }
        for name, turns in scripts.items():
            conversation = TeacherConversation(processor, list(turns))
            episode = start_episode(recipe, sample)
            transcript = await run_episode(episode, conversation, tools)
            trace = transcript.tokens
            score = build_rubric(settings.rewards, WordEncoder()).score(transcript, sample.truth)
            shown = [m.plain() for m in episode.prompt]
            shown += [o.message.plain() for o in transcript.observations]
            found[f"{sample.sample_id} {name}"] = {
                "turns": len(transcript.turns),
                "tokens": len(trace.prompt_ids) + len(trace.response_ids),
                "trace": digest([trace.prompt_ids, trace.response_ids, trace.response_mask]),
                "texts": digest([turns, shown]),
                "images": digest([image.image.size for image in transcript.images]),
                "reward": score.total,
                "terms": digest(score.terms),
            }
    compare("episodes", found)


async def test_opening_prompt_with_full_instructions(samples):

    recipe = find_recipe("seg_research")
    prompts = {}
    for sample in samples[:4]:
        messages = recipe.prompt(sample)
        prompts[sample.sample_id] = digest([[m.role, m.plain()] for m in messages])
    compare("openings", prompts)


MODES = {
    "robust": RewardSettings(),
    "dense": RewardSettings(dense=True),
    "compat": RewardSettings(mode=Mode.COMPAT),
}


async def test_rewards_of_attacks(tmp_path):
    sample = draw_sample(tmp_path, steps=("colour of Velmora", "crest of Babir", "who wears it"))
    rubrics = {name: build_rubric(settings, WordEncoder()) for name, settings in MODES.items()}
    played = {
        name: await play_attack(attack, sample)
        for name, attack in ATTACKS.items()
        if not name.startswith("1 MB")
    }
    found = {}
    for name, transcript in played.items():
        scores = [rubric.score(transcript, sample.truth) for rubric in rubrics.values()]
        shown = [o.message.plain() for o in transcript.observations]
        found[name] = {
            "totals": " ".join(f"{score.total:.6f}" for score in scores),
            "all": digest([str(transcript.stop), shown, [score.terms for score in scores]]),
        }
    compare("attacks", found)


@pytest.fixture(scope="module", params=["step_001", "step_020"])
def step(request) -> str:
    return request.param


def answered_objects(row) -> list[dict[str, Any]]:
    """The objects of the last answer, also where no frame was chosen and they are nowhere."""
    answers = [turn.action for turn in row.turns if (turn.action or {}).get("kind") == "answer"]
    return answers[-1]["objects"] if answers else []


@pytest.mark.shared
@needs_recordings
def test_predictions_read_from_recorded_rollouts(step):
    found = [
        [
            p.sample_id,
            p.prediction.keyframe_id if p.prediction.answered else None,
            [[r["box_norm1000"], r["points_norm1000"]] for r in answered_objects(p)],
            str(p.stop_reason),
            p.num_search,
        ]
        for p in read_predictions(DATA / "rollouts" / f"{step}.jsonl")
    ]
    answered = sum(bool(row[2]) for row in found)
    compare(f"predictions {step}", {"answered": answered, "all": digest(found)})


GROUPINGS = {
    "floor": GroupSettings(),
    "none": GroupSettings(Scale.NONE),
    "per term": GroupSettings(per_term=True),
    "published": PUBLISHED,
}


@pytest.mark.shared
@needs_recordings
def test_scores_and_advantages_of_recorded_rollouts(step):
    path = DATA / "rollouts" / f"{step}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # Annotated steps are not recorded; any fixed ones make the terms that compare texts run.
    steps = ["appearance of the robot", "who is the mayor", "team colours"]
    rollouts = [read_rollout({**line, "steps": steps}) for line in lines]
    settings = {str(preset): RewardSettings(preset=preset) for preset in Preset}
    found: dict[str, Any] = {}
    for name, chosen in {**settings, **MODES}.items():
        rubric = build_rubric(chosen, WordEncoder())
        scores = rubric.score_many([(rollout.transcript, rollout.truth) for rollout in rollouts])
        groups: dict[str, list[Any]] = {}
        for line, rollout, score in zip(lines, rollouts, scores, strict=True):
            groups.setdefault(line["input"], []).append(rubric.breakdown(rollout.transcript, score))
        found[name] = {
            "mean": np.mean([score.total for score in scores]),
            "terms": digest([score.terms for score in scores]),
            **{
                scale: digest([group_advantages(group, how) for group in groups.values()])
                for scale, how in GROUPINGS.items()
            },
        }
    compare(f"scores {step}", found)


@pytest.mark.shared
@needs_recordings
@pytest.mark.parametrize("backend", ["box", "grabcut"])
def test_masks_of_a_real_clip(backend, tmp_path):
    skip_pixels_of_other_versions()
    from seg_research.cli.main import main

    clip = tmp_path / "bedroom"
    clip.mkdir()
    for path in sorted((DATA / "clips" / "bedroom").glob("*.jpg"))[:8]:
        (clip / path.name).symlink_to(path)
    region = {"box_norm1000": [520, 200, 700, 950], "points_norm1000": [[600, 500]]}
    line = {
        "schema_version": 1,
        "id": "child",
        "video_path": str(clip),
        "keyframe": {"id": 8, "position": 2},
        "objects": [region],
    }
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text(json.dumps(line) + "\n")
    words = ["--backend", backend, "--format", "rle", "--workers", "1"]
    assert main(["segment", str(predictions), *words]) == 0
    written = (tmp_path / "seg" / "child" / "masks.jsonl").read_text().splitlines()
    compare(f"masks {backend}", {"frames": len(written), "all": digest(written)})
