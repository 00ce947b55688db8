import pytest

from seg_research.metrics import Averaging, Measure, SampleScore, aggregate


def sample(name, ability, j, f, num_frames=10, target=None, **more):
    more = {"temporal": 1.0, "common_px": 1, "either_px": 2} | more
    return SampleScore(name, ability, target or name, j, f, num_frames=num_frames, **more)


HALF_BROKEN = {"num_missing_frames": 1, "num_broken_frames": 1, "faults": ("b.png: broken",)}
SAMPLES = [
    sample("a", "one-hop", 1.0, 0.5, 10, common_px=90, either_px=100),
    sample("b", "one-hop", 0.0, 0.5, 2, temporal=0.5, common_px=0, either_px=100, **HALF_BROKEN),
    sample("c", "multi-hop", 0.5, 0.2, 1, common_px=10, either_px=50),
]
ABSENT = sample("d", "multi-hop", 0.0, 0.0, 4, num_missing_frames=4, temporal=0.0, common_px=0)


def means(group):
    return {str(measure): estimate.mean for measure, estimate in group.scores.items()}


def test_samples_weigh_the_same_whatever_their_length():
    table = aggregate(SAMPLES)
    assert means(table.ability["one-hop"]) == pytest.approx(
        {"J": 50, "F": 50, "JF": 50, "gIoU": 1000 / 12, "cIoU": 45, "tIoU": 75}
    )
    assert means(table.overall) == pytest.approx(
        {"J": 50, "F": 40, "JF": 45, "gIoU": 1050 / 13, "cIoU": 40, "tIoU": 250 / 3}
    )


def test_frames_weigh_the_same_if_asked():
    overall = aggregate(SAMPLES, Averaging.FRAMES).overall
    assert overall.scores[Measure.J].mean == pytest.approx(100 * 10.5 / 13)
    assert overall.scores[Measure.F].mean == pytest.approx(100 * (5 + 1 + 0.2) / 13)


def test_abilities_weigh_the_same_if_asked():
    more = [sample("e", "multi-hop", 0.0, 0.0), sample("f", "multi-hop", 0.1, 0.0)]
    table = aggregate([*SAMPLES, *more], Averaging.ABILITIES)
    assert table.ability["multi-hop"].scores[Measure.J].mean == pytest.approx(20)
    assert table.overall.scores[Measure.J].mean == pytest.approx((50 + 20) / 2)


def test_a_sample_of_which_nothing_could_be_judged_still_weighs():
    hollow = sample(
        "x",
        "one-hop",
        0.0,
        0.0,
        0,
        temporal=0.0,
        common_px=0,
        either_px=0,
        faults=("no ground truth",),
    )
    full = sample("y", "one-hop", 1.0, 1.0, 1)
    for averaging in Averaging:
        assert aggregate([hollow, full], averaging).overall.scores[Measure.J].mean == pytest.approx(
            50
        )
        assert aggregate([hollow], averaging).overall.scores[Measure.J].mean == 0


def test_missing_absent_and_broken_are_counted():
    overall = aggregate([*SAMPLES, ABSENT]).overall
    assert (
        overall.num_samples,
        overall.num_absent,
        overall.num_missing,
        overall.num_missing_frames,
    ) == (4, 1, 2, 5)
    assert (overall.num_broken, overall.num_broken_frames) == (1, 1)


def test_the_mean_without_the_absent_is_told_apart():
    table = aggregate([*SAMPLES, ABSENT])
    assert table.overall.scores[Measure.J].mean == pytest.approx(37.5)
    assert table.present is not None
    assert table.present.scores[Measure.J].mean == pytest.approx(50)
    assert table.present.num_samples == 3
    assert aggregate([ABSENT]).present is None


def test_masks_that_are_empty_everywhere_agree():
    assert (
        aggregate([sample("a", "x", 1.0, 1.0, either_px=0, common_px=0)])
        .overall.scores[Measure.C_IOU]
        .mean
        == 100
    )


def test_intervals_hold_the_mean_and_need_two_targets():
    many = [sample(str(i), "x", i % 3 / 2, 0.5, target=f"t{i // 2}") for i in range(40)]
    mean, low, high = aggregate(many).overall.scores[Measure.J]
    assert low is not None
    assert high is not None
    assert low < mean < high
    assert high - low < 60
    lone = aggregate(
        [sample("a", "x", 0.5, 0.5, target="t"), sample("b", "x", 0.0, 0.5, target="t")]
    ).overall.scores[Measure.J]
    assert lone == (pytest.approx(25), None, None)


@pytest.mark.parametrize("averaging", Averaging)
def test_an_ability_that_some_draws_lack_has_an_interval(averaging):
    table = aggregate([*SAMPLES, sample("d", "multi-hop", 0.9, 0.9, 1)], averaging)
    mean, low, high = table.ability["multi-hop"].scores[Measure.J]
    assert (mean, low, high) == (pytest.approx(70), pytest.approx(50), pytest.approx(90))


def test_json_has_percent_for_groups_and_shares_for_samples():
    result = aggregate(SAMPLES).to_json()
    overall = result["overall"]
    assert {
        key: overall[key] for key in ("J", "F", "JF", "n", "missing", "missing_frames", "broken")
    } == pytest.approx(
        {"J": 50.0, "F": 40.0, "JF": 45.0, "n": 3, "missing": 1, "missing_frames": 1, "broken": 1}
    )
    assert overall["interval_95"]["J"][0] < 50 < overall["interval_95"]["J"][1]
    assert result["ability"]["multi-hop"]["interval_95"]["J"] is None
    assert result["samples"]["a"] == [1.0, 0.5, "one-hop"]
    assert list(result["ability"]) == ["one-hop", "multi-hop"]
    assert result["broken"] == {"b": ["b.png: broken"]}
    assert result["averaging"] == "samples"


def test_markdown_names_every_ability_and_what_is_missing_and_broken():
    lines = aggregate(SAMPLES).to_markdown().splitlines()
    assert lines[2].startswith("| one-hop | 2 | 50.00 | 50.00 | 50.00 | ")
    assert (
        lines[3] == "| multi-hop | 1 | 50.00 | 20.00 | 35.00 | – | 50.00 | 20.00 | 100.00 | 0 | 0 |"
    )
    assert lines[4].startswith("| overall | 3 | 50.00 | 40.00 | 45.00 | ")
    assert lines[4].endswith("| 1 | 1 |")
    assert len({line.count("|") for line in lines}) == 1


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="no samples"):
        aggregate([])
