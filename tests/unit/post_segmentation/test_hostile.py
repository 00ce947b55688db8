"""What goes wrong with one video is told in a line and stays with it: the other videos get their
masks, and nothing is half there.
"""

import gc
import itertools
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with the train extra")
pytest.importorskip("transformers", reason="transformers comes with the train extra")

import torch
from PIL import Image

from post_segmentation.backends.sam2 import SPEC as SAM2
from post_segmentation.pipeline import read_rollout, segment
from post_segmentation.propagator import MaskPrompt
from post_segmentation.registry import find_backend
from post_segmentation.sam2_propagator import Sam2Propagator
from post_segmentation.segment_video import SegmentSettings, Status
from seg_research.cli.main import main
from seg_research.core.geometry import ImageSize, PixelBox
from seg_research.core.masks import read_mask
from seg_research.core.video import open_video
from seg_research.testing.sam2 import tiny_sam2

NUM_FRAMES = 4


def draw(folder, suffix="jpg", num_frames=NUM_FRAMES, size=(64, 48)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for frame in range(num_frames):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8)).save(
            folder / f"{frame:05d}.{suffix}"
        )
    return folder


def row(video, sample_id, **changes):
    region = {"box_norm1000": [100, 100, 900, 900], "points_norm1000": [[500, 500]]}
    return {
        "schema_version": 1,
        "id": sample_id,
        "video_path": str(video),
        "keyframe": {"id": 1},
        "objects": [region],
    } | changes


def write_rows(folder, *rows):
    path = folder / "predictions.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture(params=["box", "grabcut", "sam2"])
def masks(request, tmp_path, monkeypatch):
    """Run rows beside a good one; return what became of each, having checked that the good one is
    whole.
    """
    backend = find_backend(request.param).configure({})
    if request.param == "sam2":
        propagator = Sam2Propagator(tiny_sam2(), window=8)
        spec = replace(SAM2, build=lambda _: propagator, weights=lambda _: ())
        backend = replace(backend, spec=spec)

    def run(*rows):
        good = draw(tmp_path / "good")
        path = write_rows(tmp_path, *rows, row(good, "good"))
        predictions, refused = read_rollout(path, 0)
        outcomes = [
            *refused,
            *segment(predictions, SegmentSettings(tmp_path / "seg", backend)),
        ]
        found = {outcome.sample_id: outcome for outcome in outcomes}
        assert found.pop("good").status is Status.MASKED
        assert len(list((tmp_path / "seg/good").glob("*.png"))) == NUM_FRAMES
        assert not (tmp_path / "seg/.partial").exists()
        for sample_id, outcome in found.items():
            assert "\n" not in outcome.reason
            if outcome.status is Status.FAILED:
                assert not (tmp_path / "seg" / sample_id).exists(), (
                    "half-written masks would be scored"
                )
        return found

    run.backend = request.param
    return run


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_frame(masks, tmp_path, suffix):
    broken = draw(tmp_path / "broken", suffix)
    frame = broken / f"00002.{suffix}"
    frame.write_bytes(frame.read_bytes()[:200])
    found = masks(row(broken, "broken"))["broken"]
    if masks.backend == "box":
        assert found.status is Status.MASKED, "it looks at no frame but the first"
    else:
        assert f"00002.{suffix}: cannot decode this image" in found.reason


def test_frames_of_different_sizes(masks, tmp_path):
    mixed = draw(tmp_path / "mixed")
    Image.new("RGB", (30, 20)).save(mixed / "00003.jpg")
    found = masks(row(mixed, "mixed"))["mixed"]
    assert (
        masks.backend == "box" or "frame 00003 is 30x20, the first frame is 64x48" in found.reason
    )


def test_deep_grey_frames(masks, tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    for frame in range(NUM_FRAMES):
        grey = np.full((48, 64), 20_000, np.uint16)
        grey[10:40, 15:50] = 60_000
        Image.fromarray(grey).save(deep / f"{frame}.png")
    assert masks(row(deep, "deep"))["deep"].status is Status.MASKED
    assert set(np.unique(open_video(deep).read(0))) == {20_000 >> 8, 60_000 >> 8}, (
        "scaled, not clipped to white"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"keyframe": {"id": 77}},
            "key frame 77 is not in the video; its 4 frames run from 00000 to 00003",
        ),
        ({"keyframe": {"id": -1}}, "greater than or equal to 0"),
        ({"objects": [{"box_norm1000": [100, 100, 1900, 900]}]}, "outside 0..1000"),
        ({"objects": [{"box_norm1000": [100, 100, float("nan"), 900]}]}, "outside 0..1000"),
        (
            {"objects": [{"box_norm1000": None, "points_norm1000": [[float("inf"), 3]]}]},
            "outside 0..1000",
        ),
        ({"objects": [{"box_norm1000": [500, 100, 500, 900]}]}, "no area"),
        ({"objects": [{"box_norm1000": None}]}, "an object needs"),
        ({"video_path": "/nowhere/at/all"}, "no such video"),
    ],
)
def test_a_prediction_that_makes_no_sense(masks, tmp_path, changes, reason):
    assert reason in masks(row(draw(tmp_path / "video"), "odd", **changes))["odd"].reason


def test_a_video_without_frames(masks, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.mp4").write_bytes(b"")
    found = masks(row(tmp_path / "empty", "folder"), row(tmp_path / "empty.mp4", "file"))
    assert "holds no frames" in found["folder"].reason
    assert found["file"].status is Status.FAILED


def test_points_and_boxes_on_the_very_edge(masks, tmp_path):
    objects = [
        {"box_norm1000": [0, 0, 1000, 1000], "points_norm1000": [[1000, 1000], [0, 0]]},
        {"box_norm1000": [999, 999, 1000, 1000], "negative_points_norm1000": [[1000, 0]]},
        {"box_norm1000": None, "points_norm1000": [[1000, 1000]]},
    ]
    assert (
        masks(row(draw(tmp_path / "video"), "edge", objects=objects))["edge"].status
        is Status.MASKED
    )


class EndlessVideo:
    """Twenty thousand frames that exist only while they are looked at."""

    size = ImageSize(32, 24)

    def __init__(self):
        self.names = [f"{position:05d}" for position in range(20_000)]
        self.num_read = 0

    def __len__(self):
        return len(self.names)

    def read(self, position):
        self.num_read += 1
        return Image.new("RGB", self.size, (position % 256, 0, 0))


class StopReading(Exception):
    pass


def test_a_video_of_twenty_thousand_frames_takes_the_memory_of_a_few():
    """Its first 120 frames show it: nothing is decoded before its turn, nothing kept after."""
    propagator = Sam2Propagator(tiny_sam2(), window=8)
    video = EndlessVideo()
    propagator.open(video)
    propagator.prompt(MaskPrompt(0, PixelBox(3, 3, 20, 20)))
    propagator.prompt(MaskPrompt(19_999, PixelBox(3, 3, 20, 20)))
    assert video.num_read == 0
    coming = propagator.propagate()
    counts = [
        count_tensors()
        for position, _ in enumerate(itertools.islice(coming, 120))
        if position % 10 == 0
    ]
    coming.close()
    assert video.num_read == 121, "one ahead"
    assert max(counts[6:]) <= max(counts[:6]), "tensors that are alive"


def count_tensors():
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


def test_twenty_thousand_masks_are_written_one_by_one(tmp_path, monkeypatch):
    video = EndlessVideo()
    monkeypatch.setattr("post_segmentation.segment_video.open_video", lambda _: video)
    written = []
    monkeypatch.setattr(
        "post_segmentation.mask_writer.write_mask", lambda path, mask: written.append(path.name)
    )
    monkeypatch.setattr("post_segmentation.mask_writer.MaskWriter.commit", lambda self: None)
    predictions, _ = read_rollout(write_rows(tmp_path, row("/long", "long")), 0)
    (outcome,) = segment(
        predictions, SegmentSettings(tmp_path / "seg", find_backend("box").configure({}))
    )
    assert (outcome.status, outcome.num_frames, len(written)) == (Status.MASKED, 20_000, 20_000)
    assert video.num_read == 0


def test_an_output_folder_that_cannot_be_made_stops_at_once(tmp_path, capsys):
    path = write_rows(tmp_path, row(draw(tmp_path / "video"), "a"))
    (tmp_path / "taken").write_text("a file")
    assert (
        main(
            [
                "segment",
                str(path),
                "--backend",
                "box",
                "--workers",
                "1",
                "--out",
                str(tmp_path / "taken"),
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert "Traceback" not in error


def test_a_file_in_the_way_of_one_prediction_leaves_the_others(tmp_path, capsys):
    video = draw(tmp_path / "video")
    path = write_rows(tmp_path, row(video, "blocked/a"), row(video, "free/a"))
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg/blocked").write_text("a file")
    assert main(["segment", str(path), "--backend", "box", "--workers", "1"]) == 1
    assert "blocked/a: " in capsys.readouterr().err
    assert len(list((tmp_path / "seg/free/a").iterdir())) == NUM_FRAMES


def test_a_full_disk_leaves_nothing_half_written_and_what_was_there_before(tmp_path):
    """Small masks still fit under the limit, the larger video's do not."""
    small, large = draw(tmp_path / "small"), draw(tmp_path / "large", size=(900, 700))
    path = write_rows(tmp_path, row(small, "small"), row(large, "large"))

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "seg_research.cli.main",
            "segment",
            str(path),
            "--backend",
            "box",
            "--workers",
            "1",
        ],
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1, done.stderr
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (tmp_path / "seg").iterdir()) == ["done.jsonl", "small"]
    assert read_mask(tmp_path / "seg/small/00000.png").any()
