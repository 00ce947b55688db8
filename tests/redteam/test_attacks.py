"""No trick earns more than an honest miss, and docs/rewards.md says which the original pays."""

import json
import re
from pathlib import Path

import pytest

from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.testing.attacks import ATTACKS, honest_miss, play_attack, target_of
from seg_research.testing.fakes import WordEncoder, play
from seg_research.testing.samples import draw_sample

DOCS = Path(__file__).parents[2] / "docs" / "rewards.md"
STEPS = {
    "one step": ("colour of Velmora",),
    "three steps": ("colour of Velmora", "crest of Babir", "who wears it"),
}
HAIR = 1e-9

ROBUST = [RewardSettings(preset=preset) for preset in Preset]
DENSE = [RewardSettings(preset=preset, dense=True) for preset in Preset]
COMPAT = [RewardSettings(preset=preset, mode=Mode.COMPAT) for preset in Preset]
BOX_TERMS = ("box_iou", "box_l1")


def preset_of(settings: RewardSettings) -> str:
    return settings.preset


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {name: draw_sample(folder, name, steps=steps) for name, steps in STEPS.items()}


@pytest.fixture(scope="module", params=STEPS)
def sample(request, samples):
    return samples[request.param]


@pytest.fixture(scope="module")
def encoder():
    return WordEncoder()


async def measured(sample, settings, encoder, name):
    """Score an honest miss and the attack."""
    rubric = build_rubric(settings, encoder)
    honest = rubric.score(await play(sample, honest_miss(target_of(sample))), sample.truth)
    return honest, rubric.score(await play_attack(ATTACKS[name], sample), sample.truth)


def test_there_are_at_least_forty_attacks():
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("name", ATTACKS)
async def test_no_attack_earns_more_than_an_honest_miss(sample, encoder, name):
    attacked = await play_attack(ATTACKS[name], sample)
    missed = await play(sample, honest_miss(target_of(sample)))
    for settings in ROBUST:
        rubric = build_rubric(settings, encoder)
        score = rubric.score(attacked, sample.truth)
        assert score.total <= rubric.score(missed, sample.truth).total + HAIR, (
            settings.preset,
            score,
        )
        assert all(value is None or 0 <= value <= 1 for value in score.terms.values())


@pytest.mark.parametrize("name", ATTACKS)
async def test_paid_by_degrees_an_attack_gains_only_what_its_box_overlaps(sample, encoder, name):
    attacked = await play_attack(ATTACKS[name], sample)
    missed = await play(sample, honest_miss(target_of(sample)))
    for settings in DENSE:
        rubric = build_rubric(settings, encoder)
        without_boxes = [
            sum(
                value
                for term, value in rubric.score(played, sample.truth).paid.items()
                if term not in BOX_TERMS
            )
            for played in (attacked, missed)
        ]
        assert without_boxes[0] <= without_boxes[1] + HAIR, settings.preset


@pytest.mark.parametrize("settings", COMPAT, ids=preset_of)
async def test_no_attack_breaks_the_original_terms(samples, encoder, settings):
    rubric = build_rubric(settings, encoder)
    for name, attack in ATTACKS.items():
        assert (
            rubric.score(
                await play_attack(attack, samples["one step"]), samples["one step"].truth
            ).total
            >= 0
        ), name


async def test_the_documentation_lists_what_the_original_pays(samples, encoder):
    sample = samples["one step"]
    rows = []
    for name in ATTACKS:
        (_, ours), (honest, theirs) = [
            await measured(sample, settings, encoder, name)
            for settings in (RewardSettings(), RewardSettings(mode=Mode.COMPAT))
        ]
        if theirs.total > honest.total + HAIR:
            rows.append(f"| {name} | {theirs.total:.2f} | {ours.total:.2f} |")
    text = DOCS.read_text(encoding="utf-8")
    written = re.findall(r"^\| .+ \| \d\.\d\d \| \d\.\d\d \|$", text, re.MULTILINE)
    assert written == rows, "the table of docs/rewards.md should be:\n" + "\n".join(rows)
    assert f"{len(ATTACKS)} attacks; {len(rows)} of them" in text


async def test_an_attack_that_is_simply_right_is_paid(samples, encoder):
    # The measure itself must be able to fail: knowing the target and saying so plainly beats every
    # attack.
    sample = samples["one step"]
    target = target_of(sample)
    rubric = build_rubric(RewardSettings(), encoder)
    turns = [
        target.look,
        target.show,
        f"<thinking> there </thinking><answer> {json.dumps(target.truth)} </answer>",
    ]
    right = rubric.score(await play(sample, turns), sample.truth).total
    missed = rubric.score(await play(sample, honest_miss(target)), sample.truth).total
    assert right == pytest.approx(missed + 3)
