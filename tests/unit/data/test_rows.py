"""Prepared rows read back as samples; a row that somebody edited is refused by name."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seg_common.errors import UsageError
from seg_research.core.coarse_mask import CoarseMask
from seg_research.core.geometry import ImageSize, Norm1000Box, Norm1000Point
from seg_research.data.rows import (
    PREPARED_SCHEMA,
    check_paths,
    read_samples,
    write_rows,
)
from seg_research.data.sample import FrameRole, TargetOnFrame
from seg_research.data.truth_json import (
    THOUSANDTHS,
    mask_from_json,
    mask_to_json,
    read_targets,
    recorded_truth_to_json,
    targets_to_json,
)

TRUTH = {"bbox_2d": [612, 40, 900, 388], "point_2d": [700, 200], "area": 1.0, "max_conn_area": 0.5}


def make_row(**changes):
    truth = changes.pop("truth", {"6": TRUTH})
    images = [
        {"image": f"/data/clip/{stem}.jpg", "resized_height": 64, "resized_width": 96}
        for stem in ("00003", "00006")
    ]
    row = {
        "data_source": "Search_RVOS_one-hop",
        "images": images,
        "ability": "one-hop",
        "id": "q1",
        "video_path": "/data/clip",
        "question": "Please find 'it' in the provided video.",
        "reward_model": {
            "ground_truth": truth if isinstance(truth, str) else json.dumps(truth),
            "steps": ["a", "b"],
        },
        "extra_info": {"split": "train", "index": 0, "height": 40, "width": 60},
    }
    return row | changes


def read_back(path: Path, *rows):
    write_rows(path, rows)
    return read_samples(path)


def test_rows_come_back_as_samples(tmp_path):
    [sample] = read_back(tmp_path / "a.parquet", make_row())
    assert sample.sample_id == "q1"
    assert sample.steps == ("a", "b")
    assert [(f.frame_id, f.path, f.shown_size) for f in sample.frames] == [
        (3, Path("/data/clip/00003.jpg"), ImageSize(96, 64)),
        (6, Path("/data/clip/00006.jpg"), ImageSize(96, 64)),
    ]
    assert sample.truth.single().frames == {
        6: TargetOnFrame(Norm1000Box(612, 40, 900, 388), Norm1000Point(700, 200), 1.0, 0.5)
    }


MASK = {"size": [60, 40], "origin": [36, 1], "stride": 2, "png": "iVBORw0KGgo="}


def test_a_mask_comes_back_as_it_was_written(tmp_path):
    [sample] = read_back(tmp_path / "a.parquet", make_row(truth={"6": TRUTH | {"mask": MASK}}))
    mask = sample.truth.single().frames[6].mask
    assert mask == CoarseMask(ImageSize(60, 40), 36, 1, 2, "iVBORw0KGgo=")
    assert mask_to_json(mask) == MASK
    assert mask_from_json(MASK, "x") == mask
    with pytest.raises(UsageError, match="x: mask: column stride"):
        mask_from_json(MASK | {"stride": 0}, "x")


@pytest.mark.parametrize(("said", "read"), [(True, True), (False, False), (None, False)])
def test_a_row_can_say_that_its_target_is_absent(tmp_path, said, read):
    row = make_row(truth={})
    row["reward_model"]["absent"] = said
    [sample] = read_back(tmp_path / "a.parquet", row)
    assert sample.truth.absent is read


PROMPT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
V1_IMAGES = pa.list_(
    pa.struct(
        [("image", pa.string()), ("resized_height", pa.int64()), ("resized_width", pa.int64())]
    )
)
V1_REWARD_MODEL = [
    ("style", pa.string()),
    ("ground_truth", pa.string()),
    ("steps", pa.list_(pa.string())),
]


def write_version_1(path: Path, row: dict, reward_model: list = V1_REWARD_MODEL) -> None:
    """Write a row as the first version did, and as the authors of the published system do."""
    extra = [("split", pa.string()), ("index", pa.int64()), ("image_paths", pa.list_(pa.string()))]
    names = ("data_source", "agent_name", "ability", "id", "video_path", "question")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in names),
            ("prompt", PROMPT),
            ("images", V1_IMAGES),
            ("reward_model", pa.struct(reward_model)),
            ("extra_info", pa.struct(extra)),
        ]
    )
    old = row | {
        "agent_name": "seg_research",
        "prompt": [{"role": "user", "content": "frame 3 <image>"}],
    }
    pq.write_table(pa.Table.from_pylist([old], schema=schema), path)


def test_rows_of_version_1_are_read(tmp_path):
    write_version_1(tmp_path / "old.parquet", make_row())
    [sample] = read_samples(tmp_path / "old.parquet")
    assert (sample.truth.absent, sample.truth.single().frames[6].mask, sample.truth.steps) == (
        False,
        None,
        ("a", "b"),
    )
    assert sample.truth.difficulty is None
    assert sample.offered == sample.frames
    assert sample == read_back(tmp_path / "new.parquet", make_row())[0]


def test_rows_of_version_1_with_masks_and_absent_targets_are_read(tmp_path):
    schema = [*V1_REWARD_MODEL, ("absent", pa.bool_())]
    row = make_row(truth={"6": TRUTH | {"mask": MASK}})
    write_version_1(tmp_path / "mask.parquet", row, schema)
    [sample] = read_samples(tmp_path / "mask.parquet")
    assert mask_to_json(sample.truth.single().frames[6].mask) == MASK
    row = make_row(truth={})
    row["reward_model"]["absent"] = True
    write_version_1(tmp_path / "absent.parquet", row, schema)
    [sample] = read_samples(tmp_path / "absent.parquet")
    assert sample.truth.absent


@pytest.mark.parametrize("version", ["3", "0", "x"])
def test_rows_of_a_newer_version_are_refused(tmp_path, version):
    path = tmp_path / "new.parquet"
    schema = PREPARED_SCHEMA.with_metadata({"seg_research.rows": version})
    pq.write_table(pa.Table.from_pylist([make_row()], schema=schema), path)
    told = f"new.parquet: prepared rows of version {version}, .* up to version 2; update"
    with pytest.raises(UsageError, match=told):
        read_samples(path)


def test_several_targets_come_back(tmp_path):
    frames = {"3": TRUTH, "6": TRUTH | {"area": 0.25}}
    targets = [{"id": "left", "frames": frames}, {"id": "right", "frames": {}}]
    [sample] = read_back(tmp_path / "a.parquet", make_row(truth={"targets": targets}))
    assert [target.target_id for target in sample.truth.targets] == ["left", "right"]
    assert [sorted(target.frames) for target in sample.truth.targets] == [[3, 6], []]
    assert sample.truth.targets[0].frames[6].area == 0.25
    assert sample.truth.is_visible
    again = json.dumps(targets_to_json(sample.truth.targets))
    assert read_targets(again, dict.fromkeys((3, 6), THOUSANDTHS), "x") == sample.truth.targets
    with pytest.raises(UsageError, match=r"2 targets \(left, right\), but this recipe handles one"):
        sample.truth.single()


def test_records_hold_one_target_by_frame_and_several_by_id(tmp_path):
    [sample] = read_back(tmp_path / "a.parquet", make_row())
    assert recorded_truth_to_json(sample.truth.targets) == {"6": TRUTH | {"mask": None}}
    assert recorded_truth_to_json(()) == {}
    two = [{"id": name, "frames": {"6": TRUTH | {"mask": None}}} for name in "ab"]
    [sample] = read_back(tmp_path / "a.parquet", make_row(truth={"targets": two}))
    assert recorded_truth_to_json(sample.truth.targets) == {"targets": two}


def test_frames_have_roles(tmp_path):
    row = make_row()
    row["images"] = [image | {"role": "reference"} for image in row["images"]]
    large = {"image": "/data/clip/00006.jpg", "resized_height": 640, "resized_width": 960}
    row["images"].append(large | {"role": "target"})
    [sample] = read_back(tmp_path / "a.parquet", row)
    assert sample.offered == ()
    assert [f.frame_id for f in sample.with_role(FrameRole.REFERENCE)] == [3, 6]
    [frame] = sample.with_role(FrameRole.TARGET)
    assert (frame.frame_id, frame.shown_size) == (6, ImageSize(960, 640))
    row["extra_info"]["coordinates"] = "resized_pixels"
    with pytest.raises(UsageError, match="frame 6 is shown at two sizes"):
        read_back(tmp_path / "a.parquet", row)


def test_a_question_can_have_a_difficulty(tmp_path):
    row = make_row()
    row["reward_model"]["difficulty"] = 0.75
    [sample] = read_back(tmp_path / "a.parquet", row)
    assert sample.truth.difficulty == 0.75


def test_the_recipes_prompt_is_not_part_of_the_data():
    assert not {"prompt", "agent_name"} & set(PREPARED_SCHEMA.names)


def test_no_steps_is_an_empty_tuple(tmp_path):
    row = make_row()
    row["reward_model"]["steps"] = None
    [sample] = read_back(tmp_path / "a.parquet", row)
    assert sample.steps == ()


def test_resized_pixels_are_converted(tmp_path):
    row = make_row(truth={"6": TRUTH | {"bbox_2d": [24, 16, 48, 32], "point_2d": [36, 24]}})
    row["extra_info"]["coordinates"] = "resized_pixels"
    [sample] = read_back(tmp_path / "a.parquet", row)
    assert sample.truth.single().frames[6].box == Norm1000Box(250, 250, 500, 500)
    assert sample.truth.single().frames[6].point == Norm1000Point(375, 375)


def test_equal_rows_give_equal_bytes(tmp_path):
    write_rows(tmp_path / "a.parquet", [make_row()])
    write_rows(tmp_path / "b.parquet", [make_row()])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"truth": {"6": TRUTH | {"bbox_2d": [612, 40, 1310, 388]}}},
            r"frame 6: bbox_2d=.*1310.* outside 0\.\.1000",
        ),
        ({"truth": {"6": TRUTH | {"bbox_2d": [612, 40, 600, 388]}}}, "no area"),
        ({"truth": {"6": TRUTH | {"point_2d": [-1, 40]}}}, "outside"),
        ({"truth": {"6": TRUTH | {"bbox_2d": [612, 40, 700]}}}, "bbox_2d"),
        ({"truth": {"6": TRUTH | {"area": 0}}}, r"area=0\.0 is outside 0\.\.1"),
        ({"truth": {"6": TRUTH | {"max_conn_area": 1.5}}}, r"max_conn_area=1\.5"),
        (
            {"truth": {"4": TRUTH}},
            r"ground truth for frame '4', but the row's frames are \[3, 6\]",
        ),
        ({"truth": {"x": TRUTH}}, "frame 'x'"),
        ({"truth": "not json"}, "not a JSON object"),
        ({"truth": "[1]"}, "not a JSON object"),
        ({"images": []}, "no frames"),
        (
            {
                "images": [
                    {"image": "/data/clip/first.jpg", "resized_height": 64, "resized_width": 64}
                ]
            },
            "not named by a number",
        ),
        (
            {
                "images": [{"image": "/data/clip/3.jpg", "resized_height": 0, "resized_width": 64}],
                "truth": {},
            },
            "positive size",
        ),
        ({"truth": {"6": TRUTH | {"mask": MASK | {"origin": [1]}}}}, "mask.origin"),
        (
            {"reward_model": {"ground_truth": json.dumps({"6": TRUTH}), "absent": True}},
            "`absent` is true, but .* on frame 6",
        ),
        ({"truth": {"targets": [{"id": "a", "frames": {}}] * 2}}, "must differ"),
        ({"truth": {"targets": [{"frames": {}}]}}, r"column targets\.0\.id"),
        (
            {"reward_model": {"ground_truth": "{}", "difficulty": 1.5}},
            r"column reward_model\.difficulty",
        ),
        ({"question": None}, "column question"),
        ({"id": None}, "column id"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, changes, told):
    path = tmp_path / "a.parquet"
    with pytest.raises(UsageError, match=told) as caught:
        read_back(path, make_row(id="fine"), make_row(**changes))
    assert str(caught.value).startswith(f"{path} row 1")
    assert "\n" not in str(caught.value)


def test_ids_must_differ(tmp_path):
    with pytest.raises(UsageError, match="row 1: id 'q1' was used by row 0"):
        read_back(tmp_path / "a.parquet", make_row(), make_row())


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(UsageError, match="seg-research data NAME --root"):
        read_samples(tmp_path / "train_6_448_448.parquet")


def test_a_file_that_is_no_parquet_is_told(tmp_path):
    (tmp_path / "a.parquet").write_text("id,question\n")
    with pytest.raises(UsageError, match="not a readable parquet file"):
        read_samples(tmp_path / "a.parquet")


def test_missing_files_are_counted_and_the_first_three_named(tmp_path):
    samples = read_back(
        tmp_path / "a.parquet",
        *(make_row(id=str(i), video_path=f"/data/clip{i}") for i in range(3)),
    )
    with pytest.raises(
        UsageError,
        match=r"5 of 5 files .* /data/clip0, /data/clip/00003\.jpg, /data/clip/00006\.jpg, …;",
    ):
        check_paths(samples)


def test_files_that_are_there_pass(tmp_path):
    for stem in ("00003", "00006"):
        (tmp_path / f"{stem}.jpg").touch()
    images = [
        {"image": str(tmp_path / f"{stem}.jpg"), "resized_height": 64, "resized_width": 64}
        for stem in ("00003", "00006")
    ]
    check_paths(
        read_back(tmp_path / "a.parquet", make_row(images=images, video_path=str(tmp_path)))
    )
