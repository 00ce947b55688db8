import json

import pytest

from seg_common.errors import UsageError
from seg_research.viewer.run_folder import read_run


def change_summary(run_dir, **changes):
    path = run_dir / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_everything_is_read(run_dir):
    run = read_run(run_dir)
    assert run.missing == ()
    assert run.title == "A run"
    assert [s.name for s in run.predictions] == ["before", "after"]
    assert run.predictions[1].masks_dir == run_dir / "after" / "seg"
    assert run.steps == {"q1": ("crest of Babir",)}
    assert len(run.curve) == 5
    assert run.truth_masks["q1"] == run_dir / "truth"
    # entry 1 lies outside
    assert run.found_images == {"image_corpus.jsonl#0": run_dir / "images" / "kite.jpg"}


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such run folder"):
        read_run(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(
        UsageError, match=r"expected summary\.json, curve\.jsonl or predictions\.jsonl"
    ):
        read_run(tmp_path)


def test_predictions_alone_are_enough(run_dir):
    (run_dir / "summary.json").unlink()
    run = read_run(run_dir / "after")
    assert [(s.name, s.masks_dir) for s in run.predictions] == [
        ("after", run_dir / "after" / "seg")
    ]


def test_what_a_guard_left_of_a_training_run_is_shown(run_dir, tmp_path):
    folder = tmp_path / "stopped"
    folder.mkdir()
    (run_dir / "after" / "predictions.jsonl").rename(folder / "worst_trajectories.jsonl")
    (found,) = read_run(folder).predictions
    assert "q1" in found.by_id


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"predictions": [{"name": "gone", "path": "gone.jsonl"}]}, "gone.jsonl: no such file"),
        ({"predictions": [{"name": "odd", "path": "a\0b"}]}, "odd"),
        (
            {
                "predictions": [
                    {"name": "after", "path": "after/predictions.jsonl", "masks": "nowhere"}
                ]
            },
            "no folder",
        ),
        ({"truth": {"parquet": "gone.parquet"}}, "ground truth gone.parquet"),
        ({"truth": {"parquet": "meta.json"}}, "ground truth meta.json"),
        ({"truth": {"meta": "curve.jsonl"}}, "ground-truth masks curve.jsonl"),
        ({"truth": {"meta": "gone.json"}}, "ground-truth masks gone.json"),
        ({"images": "gone.jsonl"}, "gone.jsonl: no such file"),
        ({"rows": "many"}, "summary.json: rows"),
        ({"seed": "zero"}, "summary.json: seed"),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_goes_on(run_dir, changes, note):
    change_summary(run_dir, **changes)
    run = read_run(run_dir)
    assert any(note in line for line in run.missing)
    assert run.curve


def test_a_summary_that_is_no_json_is_named(run_dir):
    (run_dir / "summary.json").write_text("{not json")
    assert any("summary.json" in line for line in read_run(run_dir).missing)


def test_what_stands_before_a_broken_line_is_kept(run_dir):
    for path in (run_dir / "after" / "predictions.jsonl", run_dir / "curve.jsonl"):
        path.write_text(path.read_text() + "{broken\n")
    run = read_run(run_dir)
    assert len(run.curve) == 5
    assert "q1" in run.predictions[1].by_id
    assert len(run.missing) == 2
