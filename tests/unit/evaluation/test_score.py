import json

import numpy as np
import pytest

from seg_research.cli.main import main
from seg_research.core.errors import UsageError
from seg_research.core.masks import write_mask
from seg_research.evaluation.score import MaskTruth, read_meta_mapping, score_masks


def square(top, side=8, shape=(40, 50)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, 10 : 10 + side] = True
    return mask


def write_truth(folder, num_frames=4):
    for number in range(num_frames):
        write_mask(folder / f"{number:05d}.png", square(5 + number))
    return folder


@pytest.fixture
def benchmark(tmp_path):
    """Two samples of four frames; masks of the first are perfect, of the second two of four frames are there."""
    truth = {name: write_truth(tmp_path / "truth" / name) for name in ("a", "b")}
    for number in range(4):
        write_mask(tmp_path / "seg" / "s/a" / f"{number:05d}.png", square(5 + number))
    for number in range(2):
        write_mask(tmp_path / "seg" / "b" / f"{number:05d}.png", square(5 + number))
    mapping = [["s/a", str(truth["a"]), "one-hop"], ["b", str(truth["b"]), "multi-hop"]]
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    return tmp_path


def test_a_missing_frame_counts_zero_and_is_counted(benchmark):
    table = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg")
    assert [(s.sample_id, s.region, s.boundary, s.num_missing_frames) for s in table.samples] == [("s/a", 1.0, 1.0, 0), ("b", 0.5, 0.5, 2)]
    assert table.overall.region_and_boundary == pytest.approx(75.0)
    assert (table.overall.num_missing, table.ability["one-hop"].num_missing) == (1, 0)


def test_a_sample_without_any_mask_counts_zero(benchmark):
    mapping = [*read_meta_mapping(benchmark / "map.json"), MaskTruth("never", benchmark / "truth/a", "one-hop")]
    table = score_masks(mapping, benchmark / "seg")
    assert table.ability["one-hop"].region_and_boundary == pytest.approx(50.0)
    assert table.ability["one-hop"].num_missing_frames == 4


def test_only_frames_with_ground_truth_are_judged(benchmark):
    (benchmark / "truth/a/00003.png").unlink()
    write_mask(benchmark / "seg/s/a/00003.png", square(30))
    table = score_masks(read_meta_mapping(benchmark / "map.json")[:1], benchmark / "seg")
    assert (table.overall.region, table.samples[0].num_frames) == (100.0, 3)


def test_processes_give_the_same_table(benchmark):
    mapping = [MaskTruth(f"{i}", benchmark / "truth" / "ab"[i % 2], "x") for i in range(9)]
    for i in range(0, 9, 2):
        write_mask(benchmark / f"seg/{i}/00001.png", square(4 + i))
    seen = []
    parallel = score_masks(mapping, benchmark / "seg", num_workers=2, on_sample=seen.append)
    assert parallel == score_masks(mapping, benchmark / "seg")
    assert tuple(seen) == parallel.samples


def test_another_size_is_refused(benchmark):
    write_mask(benchmark / "seg/b/00000.png", square(5, shape=(40, 51)))
    with pytest.raises(UsageError, match=r"b/00000\.png: is 51x40, its ground truth .* is 50x40"):
        score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg")


def test_missing_folders_are_named(benchmark):
    mapping = read_meta_mapping(benchmark / "map.json")
    with pytest.raises(UsageError, match="no such folder of masks"):
        score_masks(mapping, benchmark / "nowhere")
    with pytest.raises(UsageError, match=r"no such ground-truth folder \(sample x\)"):
        score_masks([MaskTruth("x", benchmark / "nowhere", "")], benchmark / "seg")
    (benchmark / "hollow").mkdir()
    with pytest.raises(UsageError, match="holds no PNG"):
        score_masks([MaskTruth("x", benchmark / "hollow", "")], benchmark / "seg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "expected a non-empty list"),
        ('[["a", "b"]]', "entry 0: expected"),
        ('[["a", "b", 1]]', "entry 0: expected"),
        ('[["a", "b", "c"], ["a", "d", "c"]]', "entry 1: id 'a' stands twice"),
    ],
)
def test_a_malformed_mapping_is_named(tmp_path, content, message):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_meta_mapping(tmp_path / "map.json")


def test_the_command_prints_the_missing_and_writes_both_files(benchmark, capsys):
    (benchmark / "predictions.jsonl").write_text("")
    assert main(["evaluate", str(benchmark / "predictions.jsonl"), "--truth", str(benchmark / "map.json"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| overall | 2 | 75.00 | 75.00 | 75.00 | 1 |" in printed
    assert "missing: 1 of 2 samples lack masks (2 frames)" in printed
    result = json.loads((benchmark / "result.json").read_text())
    assert result["overall"]["JF"] == pytest.approx(75.0)
    assert result["samples"]["b"] == [0.5, 0.5, "multi-hop"]
    assert (benchmark / "result.md").read_text() in printed


def test_the_command_says_what_is_wrong_in_one_line(benchmark, capsys):
    assert main(["evaluate", str(benchmark / "seg"), "--truth", str(benchmark / "none.json")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("seg-research: ")
