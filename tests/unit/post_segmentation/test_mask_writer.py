import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from post_segmentation.mask_writer import MaskFormat, MaskWriter, encode_rle, is_complete
from seg_common.errors import UsageError
from seg_research.core.masks import read_mask
from seg_research.core.rle import decode_rle

NAMES = ["00000", "00005"]
MASKS = np.random.default_rng(0).random((2, 11, 12, 17)) > 0.5
"""Frames, objects, rows, columns; eleven objects take more than a byte."""


def write(out, mask_format=MaskFormat.PNG, sample_id="a/b", **options):
    writer = MaskWriter(out, sample_id, NAMES, mask_format, 11, **options)
    for position in (1, 0):
        writer.add(position, MASKS[position], range(11))
    return writer


def test_masks_appear_all_at_once(tmp_path):
    writer = write(tmp_path)
    assert not (tmp_path / "a").exists()
    assert not is_complete(tmp_path, "a/b", 2, MaskFormat.PNG)
    writer.commit()
    writer.close()
    assert is_complete(tmp_path, "a/b", 2, MaskFormat.PNG)
    assert sorted(p.name for p in (tmp_path / "a/b").iterdir()) == ["00000.png", "00005.png"]
    assert (read_mask(tmp_path / "a/b/00005.png") == MASKS[1].any(axis=0)).all()
    assert list((tmp_path / ".partial").iterdir()) == []


def test_what_is_not_finished_leaves_nothing(tmp_path):
    write(tmp_path, keep_objects=True).close()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_earlier_masks_give_way_and_those_of_other_ids_stay(tmp_path):
    for stem in ("00000", "00099"):
        (tmp_path / "a/b").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"a/b/{stem}.png").write_bytes(b"old")
    (tmp_path / "a/b/c").mkdir()
    (tmp_path / "a/b/c/00000.png").write_bytes(b"of the prediction a/b/c")
    write(tmp_path).commit()
    assert sorted(p.name for p in (tmp_path / "a/b").glob("*.png")) == ["00000.png", "00005.png"]
    assert (read_mask(tmp_path / "a/b/00000.png") == MASKS[0].any(axis=0)).all()
    assert (tmp_path / "a/b/c/00000.png").read_bytes() == b"of the prediction a/b/c"


def test_objects_can_be_told_apart_until_the_end(tmp_path):
    writer = write(tmp_path, keep_objects=True)
    writer.commit()
    for position in (0, 1):
        assert (writer.objects(position) == MASKS[position]).all()
    writer.close()
    assert not list((tmp_path / ".partial").iterdir())


@pytest.mark.parametrize("mask_format", MaskFormat)
def test_objects_of_different_key_frames_may_come_one_after_another(tmp_path, mask_format):
    if mask_format is MaskFormat.RLE:
        pytest.importorskip("pycocotools")
    writer = MaskWriter(tmp_path, "a", NAMES, mask_format, 11, keep_objects=True)
    for numbers in ((0, 3, 10), (1, 2), tuple(range(4, 10))):
        for position in (0, 1):
            writer.add(position, MASKS[position][list(numbers)], numbers)
    for position in (0, 1):
        assert (writer.objects(position) == MASKS[position]).all()
    writer.commit()
    merged = [masks.any(axis=0) for masks in MASKS]
    if mask_format is MaskFormat.PNG:
        found = [read_mask(tmp_path / f"a/{name}.png") for name in NAMES]
    else:
        lines = (tmp_path / "a/masks.jsonl").read_text().splitlines()
        found = [decode_rle(json.loads(line)) for line in lines]
    assert np.array_equal(found, merged)


def test_an_object_that_a_back_end_left_out_is_no_finished_mask(tmp_path):
    writer = MaskWriter(tmp_path, "a", NAMES, MaskFormat.PNG, 2)
    for position in (0, 1):
        writer.add(position, MASKS[position][:1], (0,))
    writer.add(1, MASKS[1][1:2], (1,))
    with pytest.raises(UsageError, match="all masks of 1 frames; the video has 2"):
        writer.commit()


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "a").write_text("in the way")
    writer = write(tmp_path)
    with pytest.raises(UsageError, match="cannot write"):
        writer.commit()


def test_run_lengths_are_one_line_a_frame_in_order(tmp_path):
    pytest.importorskip("pycocotools")
    writer = write(tmp_path, MaskFormat.RLE)
    assert not (tmp_path / "a").exists()
    writer.commit()
    assert is_complete(tmp_path, "a/b", 2, MaskFormat.RLE)
    lines = [json.loads(line) for line in (tmp_path / "a/b/masks.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == NAMES
    for line, masks in zip(lines, MASKS, strict=True):
        assert line["size"] == [12, 17]
        assert (decode_rle(line) == masks.any(axis=0)).all()


@given(arrays.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_run_lengths_come_back(mask):
    pytest.importorskip("pycocotools")
    assert (decode_rle(json.loads(json.dumps(encode_rle(mask)))) == mask).all()


def test_without_pycocotools_run_lengths_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(UsageError, match="pip install pycocotools"):
        encode_rle(np.ones((2, 2), bool))
