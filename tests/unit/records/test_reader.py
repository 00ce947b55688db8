import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.prediction import PredictedObject, Prediction
from seg_research.core.rle import Rle
from seg_research.records.reader import read_predictions, read_row
from seg_research.records.schema import ImageRecord, MessageRecord, PredictionRow, TurnRecord

ROW = {
    "schema_version": 1,
    "id": "a/b",
    "sample_idx": 0,
    "video_path": "/videos/a",
    "keyframe": {"id": 8, "position": 2},
    "objects": [
        {
            "box_norm1000": [1, 2, 3, 4],
            "points_norm1000": [[2, 3]],
            "negative_points_norm1000": [[900, 1]],
        }
    ],
    "score": 0.5,
    "made by": "me",
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_our_line_is_read_and_nothing_is_lost(tmp_path):
    (row,) = read_predictions(write(tmp_path / "p.jsonl", ROW))
    assert (row.sample_id, str(row.video_path), row.score) == ("a/b", "/videos/a", 0.5)
    box, inside, outside = Norm1000Box(1, 2, 3, 4), Norm1000Point(2, 3), Norm1000Point(900, 1)
    assert row.prediction == Prediction(
        (PredictedObject(8, box, (inside,), (outside,)),), answered=True, keyframe_id=8
    )
    assert row.keyframe_position == 2
    assert row.extra == {"made by": "me"}
    assert read_row(json.loads(json.dumps(row.to_json()))) == row


texts = st.text(max_size=20)
numbers = st.integers(2, 1000)
frame_ids = st.integers(0, 99)
boxes = st.builds(
    lambda x, y: Norm1000Box(x, y, x + 1, y + 2), st.integers(1, 999), st.integers(0, 998)
)
found_objects = st.builds(
    PredictedObject,
    frame_ids,
    st.none() | boxes,
    st.lists(st.builds(Norm1000Point, numbers, numbers), min_size=1, max_size=3).map(tuple),
    st.lists(st.builds(Norm1000Point, numbers, numbers), max_size=2).map(tuple),
    st.none() | st.builds(Rle, st.integers(1, 9), st.integers(1, 9), texts),
)
shown_images = st.builds(ImageRecord, texts) | st.builds(
    ImageRecord,
    texts.filter(bool),
    texts.filter(bool),
    st.tuples(frame_ids, frame_ids).map(lambda size: (size[0] + 1, size[1] + 1)),
)
images = st.lists(shown_images, max_size=2).map(tuple)
said = st.builds(
    TurnRecord,
    st.just("assistant"),
    texts,
    thinking=st.none() | texts,
    action=st.none() | st.just({"kind": "x", "places": [1, None, {"a": 2}]}),
    num_tokens=st.none() | frame_ids,
)
shown = st.builds(
    TurnRecord,
    st.just("user"),
    texts,
    tool=texts,
    outcome=texts,
    summary=texts,
    images=images,
    extra=st.dictionaries(st.sampled_from(["seconds", "cached"]), frame_ids),
)
messages = st.builds(MessageRecord, texts, texts, images)
rows = st.builds(
    PredictionRow,
    sample_id=texts,
    video_path=st.none(),
    query=texts,
    sample_idx=st.integers(0, 9),
    prompt=st.none() | st.lists(messages, max_size=2).map(tuple),
    turns=st.lists(said | shown, max_size=4).map(tuple),
    prediction=st.builds(
        Prediction,
        st.lists(found_objects, max_size=3).map(tuple),
        st.booleans(),
        st.booleans(),
        frame_ids,
    ),
    keyframe_position=st.none() | frame_ids,
    rewards=st.dictionaries(texts, st.none() | st.floats(0, 1), max_size=3),
    score=st.none() | st.floats(0, 1),
)


@given(rows)
@settings(max_examples=100, deadline=None)
def test_every_row_survives_its_line(row):
    assert read_row(json.loads(json.dumps(row.to_json()))) == row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "schema_version 3: this program reads versions 1 to 2"),
        ({"schema_version": "1"}, "schema_version '1': this program reads"),
        ({"id": 3}, "field 'id'"),
        ({"sample_idx": -1}, "field 'sample_idx'"),
        ({"keyframe": {"position": 1}}, "field 'keyframe.id': field required"),
        ({"objects": [{"box_norm1000": [1, 2, 3]}]}, "field 'objects.0.box_norm1000"),
        ({"objects": [{"box_norm1000": [1, 2, 3, 4000]}]}, "outside 0..1000"),
        ({"objects": [{"box_norm1000": [5, 2, 3, 4]}]}, "field 'objects.0': Norm1000Box"),
        ({"objects": [{"box_norm1000": [1, 2, float("nan"), 4]}]}, "outside 0..1000"),
        ({"objects": [{}]}, "needs box_norm1000, points_norm1000 or mask"),
        ({"keyframe": None}, "field 'objects.0': no frame"),
        ({"keyframe": {"id": 1, "at": 2}}, "field 'keyframe.at'"),
        ({"bbox_2d": [1, 2, 3, 4]}, "unknown field 'bbox_2d'; an object has frame_id"),
        (
            {"objects": [{"bbox": [1, 2, 3, 4], "box_norm1000": [1, 2, 3, 4]}]},
            "unknown field 'bbox'",
        ),
        ({"objects": [{"box_norm1000": [0.1, 0.2, 0.3, 1.0]}]}, "all coordinates are in 0..1"),
        ({"objects": [{"points_norm1000": [[0.1, 0.2]]}]}, "multiply by 1000"),
        ({"objects": [{"mask": {"counts": "1"}}]}, "field 'objects.0.mask.size'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, change, message):
    path = write(tmp_path / "p.jsonl", ROW, ROW | {"id": "b"} | change)
    with pytest.raises(UsageError, match=r"p\.jsonl line 2: ") as caught:
        list(read_predictions(path))
    assert message in str(caught.value)


def test_what_is_no_prediction_is_refused(tmp_path):
    with pytest.raises(UsageError, match="line 1: not a prediction"):
        list(read_predictions(write(tmp_path / "p.jsonl", {"id": "a"})))


def test_a_line_that_stands_twice_is_refused_but_rollouts_are_not(tmp_path):
    rollouts = write(tmp_path / "p.jsonl", ROW, ROW | {"sample_idx": 1})
    assert [row.sample_idx for row in read_predictions(rollouts)] == [0, 1]
    with pytest.raises(UsageError, match=r"line 2: id 'a/b', sample_idx 0 stands twice"):
        list(read_predictions(write(tmp_path / "p.jsonl", ROW, ROW)))


def test_reading_is_streaming(tmp_path):
    path = write(tmp_path / "p.jsonl", ROW)
    with path.open("a") as handle:
        handle.write("{broken")
    assert next(iter(read_predictions(path))).sample_id == "a/b"


MINIMAL = {"id": "a", "video_path": "/videos/a"}
BOX = [100, 200, 300, 400]


@pytest.mark.parametrize(
    "place",
    [
        {"keyframe": {"id": 8}, "objects": [{"box_norm1000": BOX}]},
        {"keyframe": 8, "objects": [{"box_norm1000": BOX}]},
        {"objects": [{"frame_id": 8, "box_norm1000": BOX}]},
        {"frame_id": 8, "box_norm1000": BOX},
        {"keyframe": 8, "box_norm1000": BOX},
    ],
)
@pytest.mark.parametrize("version", [{}, {"schema_version": 1}, {"schema_version": 2}])
def test_a_person_needs_to_write_no_more_than_frame_and_place(place, version):
    row = read_row({**MINIMAL, **version, **place})
    assert row.prediction.objects == (PredictedObject(8, Norm1000Box(*BOX)),)
    assert row.prediction.answered
    assert row.extra == {}


def test_objects_may_lie_on_several_frames():
    objects = [{"frame_id": 3, "box_norm1000": BOX}, {"points_norm1000": [[5, 6]]}]
    row = read_row({**MINIMAL, "keyframe": {"id": 8}, "objects": objects})
    assert [found.frame_id for found in row.prediction.objects] == [3, 8]


def test_what_looks_wrong_is_told_with_id_and_line(tmp_path, caplog):
    turns = [{"role": "assistant", "text": "here", "action": None}]
    policy = {"turns": turns, "objects": [{"box_norm1000": [0, 0, 1, 1], "label": "cat"}]}
    (row,) = read_predictions(write(tmp_path / "p.jsonl", ROW | policy))
    assert row.prediction.objects[0].box == Norm1000Box(0, 0, 1, 1)
    told = "\n".join(caplog.messages)
    assert "p.jsonl line 1: id 'a/b': field 'objects.0': field 'label' is not used" in told
    assert "all coordinates are in 0..1" in told


OLD = {
    "schema_version": 1,
    "id": "a",
    "prompt": [
        {"role": "user", "text": "<image>", "pictures": [{"path": "/f/3.jpg", "size": [64, 48]}]}
    ],
    "turns": [
        {
            "role": "assistant",
            "text": "<thinking> why </thinking><keyframe>3</keyframe>",
            "action": {"kind": "keyframe", "frame_id": 3},
            "images": [],
            "num_tokens": 7,
        },
        {
            "role": "user",
            "text": "<image>",
            "action": None,
            "tool": "keyframe",
            "outcome": "ok",
            "observation_summary": "frame 3",
            "images": ["/f/3.jpg"],
            "pictures": [{"path": "/kept/3.png", "size": [96, 96]}],
        },
        {
            "role": "assistant",
            "text": "<keyframe>-1</keyframe>",
            "action": {"kind": "answer", "objects": []},
        },
    ],
    "keyframe": {"id": 3, "position": 0},
    "objects": [],
    "error": "",
}


def test_version_1_gets_its_thoughts_images_and_claim():
    row = read_row(OLD)
    assert row.prompt[0].images == (ImageRecord("/f/3.jpg", "/f/3.jpg", (64, 48)),)
    said, shown, answer = row.turns
    assert (said.thinking, said.num_tokens, answer.thinking) == ("why", 7, None)
    assert shown.images == (ImageRecord("/f/3.jpg", "/kept/3.png", (96, 96)),)
    assert (shown.tool, shown.outcome, shown.summary) == ("keyframe", "ok", "frame 3")
    assert row.prediction == Prediction(answered=True, absent=True, keyframe_id=3)
    assert read_row(row.to_json()) == row


def test_a_row_is_well_formed_that_claims_something_and_has_no_malformed_turn():
    assert read_row(OLD).is_well_formed
    fault = {"role": "assistant", "text": "hm", "action": {"kind": "fault", "fault": "no_action"}}
    assert not read_row(OLD | {"turns": [fault, *OLD["turns"]]}).is_well_formed
    assert not read_row(OLD | {"turns": OLD["turns"][:2]}).is_well_formed
