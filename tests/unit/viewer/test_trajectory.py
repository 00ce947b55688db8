import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.records.schema import PredictionRow
from seg_research.viewer.run_folder import PredictionSet, read_run
from seg_research.viewer.trajectory import choose_questions, spread, view_question


def rewrite(run_dir, name, **changes):
    path = run_dir / name / "predictions.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) + "\n")


def test_a_question_with_all_its_parts(run_dir):
    question = view_question("q1", read_run(run_dir))
    assert question.question == "Please find the crest."
    assert [picture.caption for picture in question.offered] == ["3", "6", "9"]
    assert question.steps == ("crest of Babir",)
    before, after = question.trajectories
    assert (before.reward, after.reward) == (0.25, 1.75)
    assert after.mean_j == 1.0
    assert [picture.caption for picture in after.masks] == [
        "frame 3 · J 100",
        "key frame 6 · J 100",
        "frame 9 · J 100",
    ]
    assert question.picture == after.masks[1]
    assert [(bar.name, bar.value) for bar in after.rewards] == [
        ("format", 1.0),
        ("box", 0.5),
        ("guidance", None),
    ]


def test_boxes_and_points_are_in_pixels_of_the_key_frame(run_dir):
    keyframe = view_question("q1", read_run(run_dir)).trajectories[1].keyframe
    assert keyframe.size == (64, 48)
    assert (keyframe.boxes[0].x1, keyframe.boxes[0].y2) == (16.0, 36.0)
    assert (keyframe.points[0].x, keyframe.points[0].y) == (32.0, 24.0)
    assert len(keyframe.negative_points) == 1
    assert keyframe.truth_boxes[0].x1 == pytest.approx(15.36)


def test_without_masks_of_its_own_a_policy_scores_nothing_on_the_frames_shown(run_dir):
    before = view_question("q1", read_run(run_dir)).trajectories[0]
    assert before.mean_j == 0.0
    assert before.notes == ()


def test_the_true_box_comes_from_the_mask_where_the_row_has_none(run_dir):
    (run_dir / "test.parquet").unlink()
    keyframe = view_question("q1", read_run(run_dir)).trajectories[1].keyframe
    assert (keyframe.truth_boxes[0].x1, keyframe.truth_boxes[0].y1) == (16.0, 12.0)


def test_every_target_of_a_question_is_drawn(run_dir):
    (run_dir / "test.parquet").unlink()
    frames = [{"6": {"bbox_2d": [x, 0, x + 250, 500]}} for x in (0, 500)]
    targets = [{"id": name, "frames": found} for name, found in zip("ab", frames, strict=True)]
    rewrite(run_dir, "after", gts=json.dumps({"targets": targets}))
    keyframe = view_question("q1", read_run(run_dir)).trajectories[1].keyframe
    assert [box.x1 for box in keyframe.truth_boxes] == [0, 32]


BROKEN_TRUTHS = [
    "{not json",
    "[]",
    '{"6": []}',
    '{"6": {"bbox_2d": "x"}}',
    '{"targets": 3}',
    '{"targets": [4, {"frames": []}]}',
    7,
]


@pytest.mark.parametrize("gts", BROKEN_TRUTHS)
def test_a_broken_truth_is_no_truth(run_dir, gts):
    (run_dir / "test.parquet").unlink()
    (run_dir / "meta.json").unlink()
    rewrite(run_dir, "after", gts=gts)
    assert view_question("q1", read_run(run_dir)).trajectories[1].keyframe.truth_boxes == ()


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"video_path": "/nowhere/at/all"}, "no pictures: /nowhere/at/all"),
        ({"video_path": "a\0b"}, "no pictures"),
        ({"video_path": None}, "does not say which video"),
        ({"frame_names": ["00003", "../../etc/passwd"]}, "was offered but is not in the video"),
        ({"frame_names": ["00003"] * 20}, "8 more frames were offered"),
    ],
)
def test_what_is_missing_of_a_question_is_noted(run_dir, changes, note):
    rewrite(run_dir, "after", **changes)
    assert any(note in line for line in view_question("q1", read_run(run_dir)).notes)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"keyframe": None, "objects": []}, "no key frame"),
        ({"keyframe": {"id": 4}}, "frame 4 is not in the video"),
        ({"turns": [{"role": "user", "text": "x"}] * 41}, "1 more turns"),
    ],
)
def test_what_is_missing_of_a_trajectory_is_noted(run_dir, changes, note):
    rewrite(run_dir, "after", **changes)
    assert any(
        note in line for line in view_question("q1", read_run(run_dir)).trajectories[1].notes
    )


def test_missing_masks_are_noted(run_dir):
    for path in (run_dir / "after" / "seg" / "q1").iterdir():
        path.unlink()
    assert view_question("q1", read_run(run_dir)).trajectories[1].notes == (
        "no predicted masks for this question",
    )


def test_an_id_cannot_lead_out_of_the_mask_folder(run_dir):
    (run_dir / "after" / "seg" / "q1").rename(run_dir / "q1")
    for name in ("before", "after"):
        rewrite(run_dir, name, id="../../q1")
    assert (
        "no predicted masks"
        in view_question("../../q1", read_run(run_dir)).trajectories[1].notes[0]
    )


def test_questions_are_taken_in_turn_from_each_ability():
    abilities = {"a": "one", "b": "one", "c": "two", "d": "two", "e": "three"}
    predictions = {
        i: PredictionRow(i, None, "q", ability=ability) for i, ability in abilities.items()
    }
    assert choose_questions([PredictionSet("p", predictions, None)], 4) == ["a", "c", "e", "b"]
    assert len(choose_questions([PredictionSet("p", predictions, None)], 99)) == 5


def test_questions_that_every_policy_answered_come_first():
    both, one = PredictionRow("both", None, "q"), PredictionRow("one", None, "q")
    sets = [
        PredictionSet("p", {"one": one, "both": both}, None),
        PredictionSet("r", {"both": both}, None),
    ]
    assert choose_questions(sets, 1) == ["both"]


@given(st.integers(1, 200), st.integers(1, 8), st.integers(0, 199))
def test_frames_are_spread_over_the_video_and_include_the_key_frame(num_frames, count, keyframe):
    keyframe = min(keyframe, num_frames - 1)
    positions = spread(num_frames, count, keyframe)
    assert positions == sorted(set(positions))
    assert len(positions) == min(count, num_frames)
    assert keyframe in positions
    assert 0 <= min(positions) <= max(positions) < num_frames
