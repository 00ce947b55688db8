import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.records.schema import PredictionRow
from seg_research.viewer.mask_strip import spread
from seg_research.viewer.questions import choose_questions, view_question
from seg_research.viewer.run_folder import PredictionSet, read_run


def rewrite(run_dir, name, **changes):
    path = run_dir / name / "predictions.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) + "\n")


def test_a_question_with_all_its_parts(run_dir):
    question = view_question("q1", read_run(run_dir))
    assert question.question == "Please find the crest."
    assert [image.caption for image in question.offered] == ["3", "6", "9"]
    assert question.steps == ("crest of Babir",)
    before, after = question.trajectories
    assert (before.reward, after.reward) == (0.25, 1.75)
    assert after.mean_j == 1.0
    assert [image.caption for image in after.masks] == [
        "frame 3 · J 100",
        "key frame 6 · J 100",
        "frame 9 · J 100",
    ]
    assert question.image == after.masks[1]
    assert [(bar.name, bar.value) for bar in after.rewards] == [
        ("format", 1.0),
        ("box", 0.5),
        ("guidance", None),
    ]


def test_boxes_and_points_are_in_pixels_of_the_key_frame(run_dir):
    (keyframe,) = view_question("q1", read_run(run_dir)).trajectories[1].located
    assert (keyframe.size, keyframe.frame_id, keyframe.is_keyframe) == ((64, 48), 6, True)
    (found,) = keyframe.objects
    assert (found.number, found.box.x1, found.box.y2) == (0, 16.0, 36.0)
    assert (found.points[0].x, found.points[0].y) == (32.0, 24.0)
    assert len(found.negative_points) == 1
    assert keyframe.truth_boxes[0].x1 == pytest.approx(15.36)


def test_without_masks_of_its_own_a_policy_scores_nothing_on_the_frames_shown(run_dir):
    before = view_question("q1", read_run(run_dir)).trajectories[0]
    assert before.mean_j == 0.0
    assert before.notes == ()


def test_the_true_box_comes_from_the_mask_where_the_row_has_none(run_dir):
    (run_dir / "test.parquet").unlink()
    (keyframe,) = view_question("q1", read_run(run_dir)).trajectories[1].located
    assert (keyframe.truth_boxes[0].x1, keyframe.truth_boxes[0].y1) == (16.0, 12.0)


def test_every_target_of_a_question_is_drawn(run_dir):
    (run_dir / "test.parquet").unlink()
    frames = [{"6": {"bbox_2d": [x, 0, x + 250, 500]}} for x in (0, 500)]
    targets = [{"id": name, "frames": found} for name, found in zip("ab", frames, strict=True)]
    rewrite(run_dir, "after", gts=json.dumps({"targets": targets}))
    (keyframe,) = view_question("q1", read_run(run_dir)).trajectories[1].located
    assert [box.x1 for box in keyframe.truth_boxes] == [0, 32]


def test_objects_are_shown_on_their_own_frames_and_numbered(run_dir):
    objects = [
        {"frame_id": 6, "box_norm1000": [0, 0, 500, 500]},
        {"frame_id": 9, "points_norm1000": [[500, 500]], "negative_points_norm1000": [[20, 20]]},
        {"frame_id": 9, "mask": {"size": [3, 2], "counts": "114"}},
    ]
    rewrite(run_dir, "after", objects=objects)
    first, second = view_question("q1", read_run(run_dir)).trajectories[1].located
    assert [(view.frame_id, view.is_keyframe) for view in (first, second)] == [
        (6, True),
        (9, False),
    ]
    assert [found.number for found in (*first.objects, *second.objects)] == [1, 2, 3]
    assert (first.has_masks, second.has_masks, second.has_place) == (False, True, True)
    assert second.objects[1].anchor is None


def test_the_claim_that_the_target_is_absent_is_told(run_dir):
    answer = {"role": "assistant", "text": "-1", "action": {"kind": "answer", "objects": []}}
    rewrite(run_dir, "after", objects=[], turns=[answer])
    notes = view_question("q1", read_run(run_dir)).trajectories[1].notes
    assert "the policy says that the target is not in the video" in notes


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
    (keyframe,) = view_question("q1", read_run(run_dir)).trajectories[1].located
    assert keyframe.truth_boxes == ()


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"video_path": "/nowhere/at/all"}, "no images: /nowhere/at/all"),
        ({"video_path": "a\0b"}, "no images"),
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
        ({"keyframe": None, "objects": []}, "no frame was chosen"),
        ({"keyframe": {"id": 4}}, "frame 4, which the policy chose, is not in the video"),
        (
            {"objects": [{"frame_id": 9, "mask": {"size": [4, 4], "counts": "zz"}}]},
            "cannot be drawn",
        ),
        (
            {"objects": [{"frame_id": i, "box_norm1000": [1, 2, 30, 40]} for i in range(9)]},
            "5 more frames with objects are not shown",
        ),
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
