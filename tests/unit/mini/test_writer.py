"""The mini benchmark on disk: layout, repetition, and what happens to a folder that is not
empty.
"""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.core.masks import read_mask
from seg_research.mini.writer import VERSION, MiniSizes, read_manifest, write_mini

SIZES = MiniSizes(train=5, val=1, test=2)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini") / "bench"
    return out, write_mini(out, seed=11, sizes=SIZES)


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_processes_write_the_same_bytes_as_one(benchmark, tmp_path):
    out, manifest = benchmark
    again = write_mini(tmp_path / "again", seed=11, sizes=SIZES, workers=2)
    assert digests(tmp_path / "again") == digests(out)
    assert again == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["again"]  # nothing is left beside it


def test_another_seed_writes_other_content(benchmark, tmp_path):
    _, manifest = benchmark
    assert (
        write_mini(tmp_path / "other", seed=12, sizes=MiniSizes(1, 0, 0)).content_sha256
        != manifest.content_sha256
    )


def test_the_layout_is_that_of_okvos(benchmark):
    out, manifest = benchmark
    for split, count in (("train", 5), ("val", 1), ("test", 2)):
        rows = pq.read_table(out / f"{split}.parquet").to_pylist()
        assert len(rows) == count
        assert list(rows[0]) == ["id", "question", "video", "oid", "images", "ability", "steps"]
        for row in rows:
            frames = sorted((out / split / "JPEGImages" / row["video"]).iterdir())
            masks = sorted((out / split / "Annotations" / row["video"] / row["oid"]).iterdir())
            assert [path.stem for path in frames] == [path.stem for path in masks] == row["images"]
            assert all(len(stem) == 5 for stem in row["images"])
            with Image.open(frames[0]) as image, Image.open(masks[0]) as mask:
                assert image.size == mask.size == (320, 240)
                assert (image.format, mask.format, mask.mode) == ("JPEG", "PNG", "L")
                assert set(np.unique(mask)) <= {0, 255}
    assert manifest.num_videos == 2 + 1 + 1
    assert manifest.num_frames == 4 * 20


def test_masks_of_different_targets_do_not_overlap(benchmark):
    out, _ = benchmark
    folders = sorted((out / "train" / "Annotations" / "train_0000").iterdir())
    assert len(folders) == 4
    for path in sorted(folders[0].iterdir()):
        assert sum(read_mask(folder / path.name).astype(int) for folder in folders).max() <= 1


def test_the_knowledge_base_covers_every_step_and_its_images_exist(benchmark):
    out, manifest = benchmark
    texts = [
        json.loads(line)
        for line in (out / "local_KB" / "text_corpus.jsonl").read_text().splitlines()
    ]
    images = [
        json.loads(line)
        for line in (out / "local_KB" / "image_corpus.jsonl").read_text().splitlines()
    ]
    assert [text["id"] for text in texts] == list(range(manifest.num_passages))
    assert len(images) == manifest.num_images
    titles = [text["contents"].partition("\n")[0] for text in texts]
    assert len(set(titles)) == len(titles)
    for split in ("train", "val", "test"):
        for row in pq.read_table(out / f"{split}.parquet").to_pylist():
            assert all(any(title in step.split() for title in titles) for step in row["steps"])
    for row in images:
        with Image.open(out / "local_KB" / row["image_path"]) as image:
            assert image.size == (256, 256)
        assert row["image_path"] == f"images/{row['filename']}"


def test_splits_share_no_entity(benchmark):
    out, _ = benchmark
    titles = [
        json.loads(line)["contents"].partition("\n")[0]
        for line in (out / "local_KB" / "text_corpus.jsonl").read_text().splitlines()
    ]
    used = {}
    for split in ("train", "val", "test"):
        words = " ".join(
            " ".join([row["question"], *row["steps"]])
            for row in pq.read_table(out / f"{split}.parquet").to_pylist()
        ).replace("'", " ")
        used[split] = set(titles) & set(words.split())
    assert used["train"]
    assert not used["train"] & (used["val"] | used["test"])


def test_the_manifest_digest_is_that_of_the_files(benchmark):
    out, manifest = benchmark
    files = {
        path.as_posix(): digest
        for path, digest in digests(out).items()
        if path.name != "manifest.json"
    }
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))
    assert manifest.content_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest.num_bytes == sum((out / path).stat().st_size for path in files)


def test_the_same_arguments_again_do_nothing(benchmark):
    out, manifest = benchmark
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = write_mini(out, seed=11, sizes=SIZES)
    assert (manifest.new, again.new) == (True, False)
    assert again.content_sha256 == manifest.content_sha256
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_arguments_are_refused_unless_forced(tmp_path):
    out = tmp_path / "bench"
    write_mini(out, seed=1, sizes=MiniSizes(1, 0, 0))
    with pytest.raises(
        UsageError, match=r"seed 1, 1/0/0 questions .* not seed 2, 2/0/0 questions .* --force"
    ):
        write_mini(out, seed=2, sizes=MiniSizes(2, 0, 0))
    assert write_mini(out, seed=2, sizes=MiniSizes(2, 0, 0), force=True).new
    found = read_manifest(out)
    assert found is not None
    assert (found.version, found.seed, found.sizes) == (VERSION, 2, MiniSizes(2, 0, 0))


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match="not empty, and not a mini benchmark"):
            write_mini(tmp_path, seed=0, sizes=MiniSizes(1, 0, 0), force=force)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        write_mini(tmp_path / "notes.txt", seed=0, sizes=MiniSizes(1, 0, 0))


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_mini(tmp_path / "empty", seed=0, sizes=MiniSizes(1, 0, 0)).new


def test_a_failure_leaves_nothing_behind(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mini(tmp_path / "bench", seed=0, sizes=MiniSizes(1, 0, 0), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_mini(tmp_path / "file" / "bench", seed=0, sizes=MiniSizes(1, 0, 0))
