import pytest

from seg_research.metrics import SampleScore, aggregate

SAMPLES = [
    SampleScore("a", "one-hop", region=1.0, boundary=0.5, num_frames=10),
    SampleScore("b", "one-hop", region=0.0, boundary=0.5, num_frames=2, num_missing_frames=2),
    SampleScore("c", "multi-hop", region=0.5, boundary=0.2, num_frames=1),
]


def test_samples_weigh_the_same_whatever_their_length():
    table = aggregate(SAMPLES)
    assert table.ability["one-hop"].region == pytest.approx(50.0)
    assert table.ability["one-hop"].region_and_boundary == pytest.approx(50.0)


def test_overall_averages_samples_and_not_abilities():
    overall = aggregate(SAMPLES).overall
    assert overall.region == pytest.approx(50.0)
    assert overall.boundary == pytest.approx(40.0)
    assert overall.region_and_boundary == pytest.approx(45.0)
    assert overall.num_samples == 3


def test_missing_is_counted_in_samples_and_frames():
    table = aggregate(SAMPLES)
    assert (table.overall.num_missing, table.overall.num_missing_frames) == (1, 2)
    assert table.ability["multi-hop"].num_missing == 0


def test_json_has_percent_for_groups_and_shares_for_samples():
    result = aggregate(SAMPLES).to_json()
    assert result["overall"] == pytest.approx({"J": 50.0, "F": 40.0, "JF": 45.0, "n": 3, "missing": 1, "missing_frames": 2})
    assert result["samples"]["a"] == [1.0, 0.5, "one-hop"]
    assert list(result["ability"]) == ["one-hop", "multi-hop"]


def test_markdown_names_every_ability_and_the_missing():
    text = aggregate(SAMPLES).to_markdown()
    assert "| one-hop | 2 | 50.00 | 50.00 | 50.00 | 1 |" in text
    assert "| overall | 3 | 50.00 | 40.00 | 45.00 | 1 |" in text


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="no samples"):
        aggregate([])
