"""Settings and presets: what is paid under which name, and every mistake named."""

import json

import pytest

from seg_common.errors import UsageError
from seg_common.validation import validated
from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings, Weights
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.turns import expert_turns, keyframe_turn, search_turn
from seg_research.search.client import SearchHit
from seg_research.testing.attacks import honest_miss, target_of
from seg_research.testing.fakes import FakeSearcher, WordEncoder, play
from seg_research.testing.samples import draw_sample

STEPS = ("colour of Velmora", "crest of Babir")
OUTCOME = ("box_iou", "box_l1", "point", "keyframe")


class NewEachTime(FakeSearcher):
    """Finds another page for every query."""

    async def search(self, query, kind, top_k):
        self.hits = (SearchHit("page", f"all about {query}", 0.9, "x"),)
        return await FakeSearcher.search(self, query, kind, top_k)


class Untouchable:
    """An encoder that nobody may use."""

    def encode(self, texts):
        raise AssertionError(f"{texts} were embedded")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return draw_sample(tmp_path_factory.mktemp("videos"), steps=STEPS)


async def score(sample, turns, **settings):
    return build_rubric(RewardSettings(**settings), WordEncoder()).score(
        await play(sample, turns), sample.truth
    )


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("preset", "paid"),
    [
        (Preset.HIERARCHICAL, {"guidance": 0.5, "tapering": 0.5 * 0.973}),
        (Preset.OUTCOME_ONLY, {}),
        (Preset.RIGID_STEPS, {"dense_imitation": 1}),
        (Preset.IGR_ONLY, {"guidance": 0.5}),
        (Preset.TPR_ONLY, {"tapering": 0.5 * 0.973}),
        (Preset.LINEAR, {"linear_process": 1}),
        (Preset.BINARY, {"binary_process": 1}),
    ],
)
async def test_what_perfect_work_is_paid_for_its_process(sample, mode, preset, paid):
    played = await play(sample, expert_turns(sample), searcher=NewEachTime())
    rubric = build_rubric(RewardSettings(mode=mode, preset=preset), WordEncoder())
    found = rubric.score(played, sample.truth)
    process = {name: value for name, value in found.paid.items() if name not in OUTCOME}
    unbounded = {
        Preset.RIGID_STEPS: {"dense_imitation": 2},
        Preset.LINEAR: {"linear_process": 3},
        Preset.BINARY: {"binary_process": 0},
    }
    assert process == pytest.approx(unbounded.get(preset, paid) if mode is Mode.COMPAT else paid)
    assert found.outcome == pytest.approx(4)
    assert set(found.terms) == {*OUTCOME, "format", "tapering", *paid}


@pytest.mark.parametrize("preset", Preset)
async def test_without_annotated_steps_the_format_takes_the_place_of_the_process(tmp_path, preset):
    sample = draw_sample(tmp_path, steps=())
    for mode in Mode:
        found = build_rubric(RewardSettings(mode=mode, preset=preset), Untouchable()).score(
            await play(sample, [search_turn("Velmora", "x"), *expert_turns(sample)]),
            sample.truth,
        )
        assert found.total == (4 if preset is Preset.OUTCOME_ONLY else 5)


@pytest.mark.parametrize("preset", Preset)
async def test_robust_process_is_never_paid_without_an_answer(sample, preset):
    turns = [search_turn(step, "x") for step in STEPS] + [keyframe_turn(5, "x")]
    assert (await score(sample, turns, preset=preset)).total == 0


@pytest.mark.parametrize(
    "preset", [Preset.OUTCOME_ONLY, Preset.TPR_ONLY, Preset.BINARY, Preset.LINEAR]
)
@pytest.mark.parametrize("mode", Mode)
async def test_what_compares_no_texts_embeds_none(sample, preset, mode):
    played = await play(sample, expert_turns(sample))
    assert (
        build_rubric(RewardSettings(mode=mode, preset=preset), Untouchable())
        .score_many([(played, sample.truth)])[0]
        .total
        >= 4
    )


async def test_weights_multiply_the_terms_and_the_process_part(sample):
    turns = expert_turns(sample)
    plain = await score(sample, turns)
    weighted = await score(
        sample, turns, weights=Weights(box_iou=3, box_l1=0, point=0.5, keyframe=1, process=2)
    )
    assert weighted.terms == plain.terms
    assert "box_l1" not in weighted.paid
    assert [
        weighted.paid[name] / plain.paid[name]
        for name in ("box_iou", "point", "keyframe", "guidance", "tapering")
    ] == [
        3,
        0.5,
        1,
        2,
        2,
    ]


async def test_thresholds_reach_their_terms(sample):
    shifted = {"bbox_2d": [270, 270, 480, 560], "point_2d": [300, 300]}
    turns = [
        *honest_miss(target_of(sample))[:2],
        f"<thinking> x </thinking><answer> {json.dumps(shifted)} </answer>",
    ]
    strict = await score(sample, turns, guidance_cosine=0.999)
    lenient = await score(sample, turns, iou_threshold=0.3, l1_limit=60, point_radius=200, p=0.5)
    assert [strict.terms[name] for name in ("box_iou", "box_l1", "point")] == [1, 0, 0]
    assert [lenient.terms[name] for name in ("box_iou", "box_l1", "point")] == [1, 1, 1]
    assert (strict.terms["tapering"], lenient.terms["tapering"]) == pytest.approx((0.91, 0.75))
    assert (await score(sample, turns, iou_threshold=0.9)).terms["box_iou"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": Mode.COMPAT, "dense": True}, "mode=compat has no dense terms"),
        ({"p": 0.0}, "p=0.0: Input should be greater than 0"),
        ({"p": 1.0}, "p=1.0"),
        ({"p": float("nan")}, "p=nan"),
        ({"budget": -1}, "budget=-1: Input should be greater than or equal to 0"),
        ({"iou_threshold": 1.0}, "iou_threshold=1.0: Input should be less than 1"),
        ({"point_depth": -0.1}, "point_depth=-0.1"),
        ({"guidance_cosine": 1.5}, "guidance_cosine=1.5: "),
        ({"l1_limit": 0.0}, "l1_limit=0.0: "),
        ({"point_radius": float("inf")}, "point_radius=inf"),
        ({"encoder": " "}, "encoder=' '"),
        ({"encoder_threads": 0}, "encoder_threads=0"),
    ],
)
def test_every_mistake_is_named(given, message):
    with pytest.raises(UsageError, match="rewards: ") as caught:
        validated(RewardSettings, given, "rewards")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


NOTHING = dict.fromkeys((*OUTCOME, "process"), 0.0)


@pytest.mark.parametrize(
    "given", [{"point": -1.0}, {"process": float("nan")}, {"box_l1": float("inf")}, NOTHING]
)
def test_weights_must_be_weights(given):
    with pytest.raises(
        UsageError,
        match=r"weights: .*(Input should be (greater than or equal to 0|a finite number)|above 0)",
    ):
        validated(Weights, given, "weights")
