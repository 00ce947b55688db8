"""`seg-research segment` as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from post_segmentation import pipeline
from seg_research.cli.main import main
from seg_research.core.masks import read_mask
from seg_research.records.reader import read_row
from seg_research.testing.sam2 import tiny_sam2

ROLLOUTS = Path(__file__).parents[4] / "shared/data/rollouts/step_020.jsonl"


def test_the_command_writes_masks_and_videos_and_tells(clip, row_of, write_predictions, capsys):
    path = write_predictions(row_of(clip, "a"), row_of(clip, "b", objects=[]))
    assert main(["segment", str(path), "--backend", "box", "--workers", "1", "--vis"]) == 0
    printed = capsys.readouterr().out
    assert f"masks of 2 of 2 predictions in {path.parent / 'seg'}, by box" in printed
    assert "without a usable answer, given empty masks: 1" in printed
    assert sorted(p.name for p in (path.parent / "vis").iterdir()) == ["a.mp4", "b.mp4"]
    assert main(["segment", str(path), "--backend", "box", "--workers", "1", "--vis"]) == 0
    assert "already there: 2" in capsys.readouterr().out


def test_the_command_fails_aloud_but_keeps_what_worked(clip, row_of, write_predictions, capsys):
    path = write_predictions(
        row_of(clip, "a"), *(row_of(clip, f"n{i}", video_path=None) for i in range(30))
    )
    assert main(["segment", str(path), "--backend", "box", "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert "failed: 30" in error
    assert "n0 and 29 more: the line names no video" in error
    assert (path.parent / "seg/a/00000.png").exists()


def test_other_rollouts_go_to_their_own_folder(clip, row_of, write_predictions):
    path = write_predictions(row_of(clip), row_of(clip, sample_idx=2))
    assert (
        main(["segment", str(path), "--backend", "box", "--workers", "1", "--sample-idx", "2"]) == 0
    )
    assert (path.parent / "seg_2/disc/0/00000.png").exists()
    assert not (path.parent / "seg").exists()


def test_the_originals_command_is_the_same_command(clip, row_of, write_predictions):
    path = write_predictions(row_of(clip))
    script = Path(pipeline.__file__).with_name("sam2_okvos.py")
    finished = subprocess.run(
        [sys.executable, str(script), str(path), "--backend", "box", "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert len(list((path.parent / "seg/disc/0").iterdir())) == len(clip.names)


def test_the_back_end_is_chosen_aloud(clip, row_of, write_predictions, capsys, monkeypatch):
    monkeypatch.setattr("post_segmentation.backends.sam2.is_cached", lambda _: False)
    path = write_predictions(row_of(clip))
    assert main(["segment", str(path), "--workers", "1"]) == 0
    printed = capsys.readouterr()
    assert (
        "facebook/sam2.1-hiera-large is not on this machine (--backend sam2 downloads it,"
        " --weights names a folder), so the masks are grabcut's" in printed.err
    )
    assert "by grabcut" in printed.out


def test_weights_choose_sam2_and_other_weights_do_it_again(
    clip, row_of, write_predictions, capsys, tmp_path
):

    path = write_predictions(row_of(clip))
    for seed, expected in (
        (0, "new: 1, already there: 0"),
        (0, "new: 0, already there: 1"),
        (1, "new: 1, already there: 0"),
    ):
        tiny_sam2(seed).save_pretrained(tmp_path / f"tiny{seed}")
        assert (
            main(
                [
                    "segment",
                    str(path),
                    "--weights",
                    str(tmp_path / f"tiny{seed}"),
                    "--device",
                    "cpu",
                    "--vis",
                ]
            )
            == 0
        )
        assert f"by sam2 ({expected})" in capsys.readouterr().out
    assert (path.parent / "vis/disc/0.mp4").stat().st_size > 1000


@pytest.mark.shared
@pytest.mark.skipif(not ROLLOUTS.is_file(), reason="needs ../shared/data/rollouts")
def test_rollouts_of_the_original_become_masks(clip, tmp_path):
    """Their key frame is the number in a file's name, which they wrote down without its
    position.
    """
    recorded = json.loads(ROLLOUTS.read_text().splitlines()[0])
    frame_id = read_row(recorded).prediction.objects[0].frame_id
    video = tmp_path / "video"
    video.mkdir()
    for number, source in zip(
        (frame_id, frame_id + 3, frame_id + 7), sorted(clip.folder.iterdir())[:3], strict=True
    ):
        shutil.copy(source, video / f"{number:05d}.png")
    path = tmp_path / "0.jsonl"
    path.write_text(json.dumps(recorded | {"id": "orig/1", "video_path": str(video)}) + "\n")
    assert main(["segment", str(path), "--backend", "box", "--workers", "1"]) == 0
    assert read_mask(tmp_path / f"seg/orig/1/{frame_id:05d}.png").any()
    assert len(list((tmp_path / "seg/orig/1").iterdir())) == 3
