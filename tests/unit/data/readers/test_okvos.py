"""The OK-VOS reader on small hand-made folders: frame choice, measures, coordinates, and one line
for every fault.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize, Norm1000Point
from seg_research.core.masks import write_mask
from seg_research.data.preparation import ModelType, Preparation
from seg_research.data.prepare import prepare
from seg_research.data.readers import okvos
from seg_research.data.rows import read_rows, read_samples
from seg_research.data.splits import Split

WIDTH, HEIGHT = 60, 40


def prepare_okvos(root, preparation, workers=1):
    return prepare(okvos.SPEC, root, preparation, workers)


def make_folder(
    root: Path,
    *,
    num_frames: int = 12,
    shown=(4, 5, 6),
    stride: int = 5,
    split: str = "train",
    **changes,
) -> dict:
    """Write one video whose target is a 10x6 box on the `shown` positions; return its raw row."""
    stems = [f"{stride * position:05d}" for position in range(num_frames)]
    frames = root / split / "JPEGImages" / "clip"
    masks = root / split / "Annotations" / "clip" / "7"
    frames.mkdir(parents=True)
    for position, stem in enumerate(stems):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * position, 90, 90)).save(frames / f"{stem}.jpg")
        mask = np.zeros((HEIGHT, WIDTH), bool)
        if position in shown:
            mask[10:16, 20 + position : 30 + position] = True
            if position == 5:
                mask[30:32, 2:4] = True  # a second component
        if position != 0:  # the first frame has no mask file at all
            write_mask(masks / f"{stem}.png", mask)
    row = {
        "id": "q1",
        "question": "Please find 'it' in the provided video.",
        "video": "clip",
        "oid": "7",
        "images": stems[::-1],
    }
    row |= {"ability": "one-hop", "steps": ["what it is"]} | changes
    write_raw(root, [row], split)
    return row


def write_raw(root: Path, rows: list[dict], split: str = "train") -> None:
    pq.write_table(pa.Table.from_pylist(rows), root / f"{split}.parquet")


def frame_ids(root: Path, preparation: Preparation) -> list[int]:
    [sample] = read_samples(prepare_okvos(root, preparation).path)
    return [frame.frame_id for frame in sample.frames]


def test_a_row_becomes_a_sample(tmp_path):
    make_folder(tmp_path, num_frames=6, split="test")
    prepared = prepare_okvos(tmp_path, Preparation(Split.TEST))
    assert prepared.path == tmp_path / "test_6_448_448.parquet"
    assert (prepared.num_rows, prepared.skipped) == (1, ())
    [row] = read_rows(prepared.path)
    assert row["data_source"] == "Search_RVOS_one-hop"
    assert row["video_path"] == str(tmp_path / "test/JPEGImages/clip")
    assert row["images"][1] == {
        "image": str(tmp_path / "test/JPEGImages/clip/00005.jpg"),
        "resized_height": 448,
        "resized_width": 448,
        "role": "offered",
    }
    assert row["reward_model"]["steps"] == ["what it is"]
    assert {key: row["extra_info"][key] for key in ("split", "index", "height", "width")} == {
        "split": "test",
        "index": 0,
        "height": HEIGHT,
        "width": WIDTH,
    }
    [target] = json.loads(row["reward_model"]["ground_truth"])["targets"]
    assert target["id"] == "7"
    truth = target["frames"]
    assert sorted(truth) == ["20", "25"]
    # Position 4: x 24..33, y 10..15; the deepest pixels are two rows in, the first of them
    # leftmost.
    assert truth["20"]["bbox_2d"] == [
        round(1000 * 24 / 60),
        round(1000 * 10 / 40),
        round(1000 * 33 / 60),
        round(1000 * 15 / 40),
    ]
    assert truth["20"]["point_2d"] == [round(1000 * 26 / 60), round(1000 * 12 / 40)]
    assert (truth["20"]["area"], truth["20"]["max_conn_area"]) == (60 / 64, 1.0)
    assert (truth["25"]["area"], truth["25"]["max_conn_area"]) == (1.0, 1.0)


def test_the_mapping_names_mask_folders(tmp_path):
    make_folder(tmp_path, split="test")
    prepare_okvos(tmp_path, Preparation(Split.TEST))
    mapping = json.loads((tmp_path / "test_meta_mapping.json").read_text())
    assert mapping == [["q1", str(tmp_path / "test/Annotations/clip/7"), "one-hop"]]
    assert json.loads((tmp_path / "meta_mapping.json").read_text()) == mapping


def test_the_mask_of_every_truth_tells_how_deep_a_point_lies(tmp_path):
    make_folder(tmp_path, num_frames=6)
    [sample] = read_samples(prepare_okvos(tmp_path, Preparation(Split.TRAIN)).path)
    for truth in sample.truth.single().frames.values():
        assert truth.mask.size == ImageSize(WIDTH, HEIGHT)
        assert truth.mask.depths_px([truth.point, Norm1000Point(0, 0)]) == [3, 0]


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("num_frames", [4, 12])
def test_a_target_can_be_absent(tmp_path, with_masks, num_frames):
    make_folder(tmp_path, num_frames=num_frames, shown=(), absent=True)
    if not with_masks:
        shutil.rmtree(tmp_path / "train" / "Annotations")
    [sample] = read_samples(prepare_okvos(tmp_path, Preparation(Split.TRAIN)).path)
    assert (sample.truth.targets, sample.truth.absent) == ((), True)
    assert len(sample.frames) == min(num_frames, 6)


def test_a_target_that_is_said_to_be_absent_and_shown_is_refused(tmp_path):
    make_folder(tmp_path, num_frames=6, absent=True)
    with pytest.raises(
        UsageError,
        match=r"row 0 \(id q1\): `absent` is true, but a mask shows the target on frame 20",
    ):
        prepare_okvos(tmp_path, Preparation(Split.TRAIN))


def test_frames_are_spread_evenly_and_truncated(tmp_path):
    make_folder(tmp_path, num_frames=12, split="test")
    assert frame_ids(tmp_path, Preparation(Split.TEST)) == [5 * p for p in (0, 2, 4, 6, 8, 11)]


def test_few_frames_are_all_offered(tmp_path):
    make_folder(tmp_path, num_frames=7)
    assert frame_ids(tmp_path, Preparation(Split.TRAIN, num_frames=9)) == [5 * p for p in range(7)]


def test_a_train_sample_gets_one_frame_with_the_target(tmp_path):
    make_folder(tmp_path, num_frames=31, shown=(16,))
    # linspace(0, 30, 6) = 0 6 12 18 24 30; position 16 replaces its nearest, 18.
    assert frame_ids(tmp_path, Preparation(Split.TRAIN)) == [5 * p for p in (0, 6, 12, 16, 24, 30)]


def test_the_first_of_two_equally_near_frames_gives_way(tmp_path):
    make_folder(tmp_path, num_frames=31, shown=(15,))
    assert frame_ids(tmp_path, Preparation(Split.TRAIN)) == [5 * p for p in (0, 6, 15, 18, 24, 30)]


def test_the_draw_depends_on_seed_and_sample_alone(tmp_path):
    row = make_folder(tmp_path, num_frames=60, shown=range(1, 60))
    draws = {
        seed: tuple(frame_ids(tmp_path, Preparation(Split.TRAIN, seed=seed))) for seed in range(6)
    }
    assert len(set(draws.values())) > 1
    write_raw(tmp_path, [row | {"id": f"q{i}"} for i in (3, 1, 2)])
    alone = {
        sample.sample_id: sample.frames
        for sample in read_samples(prepare_okvos(tmp_path, Preparation(Split.TRAIN, seed=4)).path)
    }
    together = read_samples(
        prepare_okvos(tmp_path, Preparation(Split.TRAIN, seed=4), workers=2).path
    )
    assert [sample.sample_id for sample in together] == ["q3", "q1", "q2"]
    assert all(alone[sample.sample_id] == sample.frames for sample in together)
    assert tuple(frame.frame_id for frame in alone["q1"]) == draws[4]


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    make_folder(tmp_path)
    path = prepare_okvos(tmp_path, Preparation(Split.TRAIN)).path
    first = path.read_bytes()
    assert prepare_okvos(tmp_path, Preparation(Split.TRAIN)).path.read_bytes() == first


def test_qwen2_5_counts_pixels_of_the_resized_frame_and_samples_count_thousandths(tmp_path):
    make_folder(tmp_path, num_frames=6, split="test")
    path = prepare_okvos(tmp_path, Preparation(Split.TEST, model_type=ModelType.QWEN2_5_VL)).path
    [target] = json.loads(read_rows(path)[0]["reward_model"]["ground_truth"])["targets"]
    truth = target["frames"]["20"]
    assert truth["bbox_2d"] == [
        round(24 / 60 * 448),
        round(10 / 40 * 448),
        round(33 / 60 * 448),
        round(15 / 40 * 448),
    ]
    [sample] = read_samples(path)
    box = sample.truth.single().frames[20].box
    assert np.allclose(box.as_list(), [400, 250, 550, 375], atol=1.2)


def test_a_thin_target_keeps_a_box_with_area(tmp_path):
    make_folder(tmp_path, num_frames=6, split="test")
    line = np.zeros((HEIGHT, WIDTH), bool)
    line[:, 17] = True
    write_mask(tmp_path / "test/Annotations/clip/7/00020.png", line)
    [sample] = read_samples(prepare_okvos(tmp_path, Preparation(Split.TEST)).path)
    box = sample.truth.single().frames[20].box
    assert box.x1 < box.x2


def complaint(root: Path, split: Split = Split.TRAIN, **options) -> str:
    with pytest.raises(UsageError) as caught:
        prepare_okvos(root, Preparation(split, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_video_names_row_and_folder(tmp_path):
    make_folder(tmp_path, video="gone")
    told = complaint(tmp_path)
    assert "train.parquet row 0 (id q1)" in told
    assert "no video folder" in told
    assert "gone" in told


def test_a_missing_object_names_its_folder(tmp_path):
    make_folder(tmp_path, oid="9")
    assert "Annotations/clip/9" in complaint(tmp_path)


def test_missing_frames_are_counted(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/JPEGImages/clip/00010.jpg").unlink()
    assert "1 of 12 frames are missing" in complaint(tmp_path)


def test_a_corrupt_frame_is_found_before_training(tmp_path):
    make_folder(tmp_path, num_frames=6)
    path = tmp_path / "train/JPEGImages/clip/00010.jpg"
    path.write_bytes(path.read_bytes()[:300])
    told = complaint(tmp_path)
    assert "row 0 (id q1)" in told
    assert "00010.jpg" in told


def test_a_corrupt_mask_is_named_with_its_row(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/Annotations/clip/7/00010.png").write_bytes(b"no image")
    told = complaint(tmp_path)
    assert "row 0 (id q1)" in told
    assert "00010.png" in told


def test_a_mask_of_another_size_is_refused(tmp_path):
    make_folder(tmp_path, num_frames=6)
    write_mask(tmp_path / "train/Annotations/clip/7/00010.png", np.ones((5, 5), bool))
    assert "is 5x5, its frame 60x40" in complaint(tmp_path)


def test_frames_of_different_sizes_are_refused(tmp_path):
    make_folder(tmp_path, num_frames=6, split="test")
    Image.new("RGB", (8, 8)).save(tmp_path / "test/JPEGImages/clip/00010.jpg")
    assert "00010.jpg 8x8" in complaint(tmp_path, Split.TEST)


def test_frame_names_must_be_numbers(tmp_path):
    make_folder(tmp_path, images=["00000", "first"])
    assert "frame 'first'" in complaint(tmp_path)


def test_two_names_of_one_number_are_refused(tmp_path):
    make_folder(tmp_path, images=["00005", "5"])
    assert "the same number" in complaint(tmp_path)


def test_a_target_that_is_never_seen_stops_train_but_not_test(tmp_path):
    make_folder(tmp_path, shown=())
    told = complaint(tmp_path)
    assert "row 0 (id q1)" in told
    assert "--skip-bad" in told
    make_folder(tmp_path / "b", shown=(), split="test")
    [sample] = read_samples(prepare_okvos(tmp_path / "b", Preparation(Split.TEST)).path)
    assert sample.truth.single().frames == {}


def test_faulty_train_rows_can_be_left_out_and_are_counted(tmp_path):
    row = make_folder(tmp_path)
    write_raw(tmp_path, [row, row | {"id": "q2", "video": "gone"}, row | {"id": "q3"}])
    prepared = prepare_okvos(tmp_path, Preparation(Split.TRAIN, skip_bad=True))
    assert [sample.sample_id for sample in read_samples(prepared.path)] == ["q1", "q3"]
    assert len(prepared.skipped) == 1
    assert "row 1 (id q2)" in prepared.skipped[0]
    assert [
        entry[0] for entry in json.loads((tmp_path / "train_meta_mapping.json").read_text())
    ] == ["q1", "q3"]


def test_nothing_usable_is_an_error(tmp_path):
    make_folder(tmp_path, video="gone")
    assert "no usable row" in complaint(tmp_path, skip_bad=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"video": "../clip"}, "folder name"),
        ({"id": "/q1"}, "folder name"),
        ({"oid": ""}, "folder name"),
        ({"question": None}, "column question"),
        ({"images": []}, "no frames"),
    ],
)
def test_a_faulty_column_is_named(tmp_path, change, told):
    make_folder(tmp_path, **change)
    seen = complaint(tmp_path)
    assert told in seen
    assert "row 0" in seen


def test_numbers_serve_as_ids(tmp_path):
    make_folder(tmp_path, id=0, oid=7)
    [sample] = read_samples(prepare_okvos(tmp_path, Preparation(Split.TRAIN)).path)
    assert sample.sample_id == "0"


def test_rows_without_ids_are_numbered(tmp_path):
    row = make_folder(tmp_path)
    del row["id"]
    write_raw(tmp_path, [row, row])
    assert [
        s.sample_id for s in read_samples(prepare_okvos(tmp_path, Preparation(Split.TRAIN)).path)
    ] == ["0", "1"]


def test_ids_must_differ(tmp_path):
    row = make_folder(tmp_path)
    write_raw(tmp_path, [row, row])
    assert "was used by row 0" in complaint(tmp_path)


def test_a_missing_or_broken_raw_file_is_told(tmp_path):
    assert "no such file" in complaint(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    assert "not a readable parquet file" in complaint(tmp_path)
