import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.cli.main import main
from seg_research.core.masks import write_mask
from seg_research.evaluation.protocols.jf import read_meta_mapping
from seg_research.evaluation.score_masks import MaskTruth, score_masks
from seg_research.metrics import Averaging


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
    """Two samples of four frames; masks of the first are perfect, of the second two of four frames
    are there.
    """
    truth = {name: write_truth(tmp_path / "truth" / name) for name in ("a", "b")}
    for number in range(4):
        write_mask(tmp_path / "seg" / "s/a" / f"{number:05d}.png", square(5 + number))
    for number in range(2):
        write_mask(tmp_path / "seg" / "b" / f"{number:05d}.png", square(5 + number))
    mapping = [["s/a", str(truth["a"]), "one-hop"], ["b", str(truth["b"]), "multi-hop"]]
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    return tmp_path


def means(group):
    return {str(measure): estimate.mean for measure, estimate in group.scores.items()}


def test_a_missing_frame_counts_zero_and_is_counted(benchmark):
    table = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg")
    assert [(s.sample_id, s.region, s.boundary, s.num_missing_frames) for s in table.samples] == [
        ("s/a", 1.0, 1.0, 0),
        ("b", 0.5, 0.5, 2),
    ]
    assert means(table.overall) == pytest.approx(
        {"J": 75, "F": 75, "JF": 75, "gIoU": 75, "cIoU": 75, "tIoU": 75}
    )
    assert (
        table.overall.num_missing,
        table.overall.num_absent,
        table.ability["one-hop"].num_missing,
    ) == (1, 0, 0)


def test_a_sample_without_any_mask_counts_zero(benchmark):
    mapping = [
        *read_meta_mapping(benchmark / "map.json"),
        MaskTruth("never", benchmark / "truth/a", "one-hop"),
    ]
    table = score_masks(mapping, benchmark / "seg")
    assert means(table.ability["one-hop"]) == pytest.approx(
        {"J": 50, "F": 50, "JF": 50, "gIoU": 50, "cIoU": 50, "tIoU": 50}
    )
    assert (table.ability["one-hop"].num_missing_frames, table.overall.num_absent) == (4, 1)
    assert table.present is not None
    assert means(table.present)["J"] == pytest.approx(75)


def test_a_sample_without_any_mask_counts_zero_even_where_there_was_nothing_to_see(benchmark):
    write_mask(benchmark / "truth/none/00000.png", np.zeros((40, 50), bool))
    nothing = score_masks(
        [MaskTruth("none", benchmark / "truth/none", "one-hop")], benchmark / "seg"
    ).samples[0]
    assert (nothing.region, nothing.boundary, nothing.temporal) == (0.0, 0.0, 0.0)


def test_only_frames_with_ground_truth_are_judged(benchmark):
    (benchmark / "truth/a/00003.png").unlink()
    write_mask(benchmark / "seg/s/a/00003.png", square(30))
    table = score_masks(read_meta_mapping(benchmark / "map.json")[:1], benchmark / "seg")
    assert (means(table.overall)["J"], table.samples[0].num_frames) == (100.0, 3)


def test_an_empty_truth_is_judged_and_an_empty_answer_right(benchmark):
    write_mask(benchmark / "truth/a/00003.png", np.zeros((40, 50), bool))
    write_mask(benchmark / "seg/s/a/00003.png", np.zeros((40, 50), bool))
    only_a = read_meta_mapping(benchmark / "map.json")[:1]
    assert means(score_masks(only_a, benchmark / "seg").overall) == dict.fromkeys(
        ["J", "F", "JF", "gIoU", "cIoU", "tIoU"], 100.0
    )
    write_mask(benchmark / "seg/s/a/00003.png", square(3))
    assert means(score_masks(only_a, benchmark / "seg").overall) == pytest.approx(
        {"J": 75, "F": 75, "JF": 75, "gIoU": 75, "cIoU": 75, "tIoU": 75}
    )


def test_inner_frames_leave_out_the_first_and_the_last(benchmark):
    write_mask(benchmark / "seg/s/a/00000.png", square(30))
    write_mask(benchmark / "seg/s/a/00003.png", square(30))
    table = score_masks(
        read_meta_mapping(benchmark / "map.json")[:1], benchmark / "seg", inner_frames=True
    )
    assert (table.samples[0].region, table.samples[0].num_frames) == (1.0, 2)


def test_averaging_is_handed_on(benchmark):
    (benchmark / "truth/b/00003.png").unlink()
    table = score_masks(
        read_meta_mapping(benchmark / "map.json"), benchmark / "seg", averaging=Averaging.FRAMES
    )
    assert means(table.overall)["J"] == pytest.approx(100 * 6 / 7)


def test_processes_give_the_same_table(benchmark, monkeypatch):
    monkeypatch.setattr("seg_research.evaluation.score_masks.BATCH_FRAMES", 3)
    mapping = [MaskTruth(f"{i}", benchmark / "truth" / "ab"[i % 2], "x") for i in range(9)]
    for i in range(0, 9, 2):
        write_mask(benchmark / f"seg/{i}/00001.png", square(4 + i))
    seen = []
    parallel = score_masks(mapping, benchmark / "seg", num_workers=2, on_sample=seen.append)
    assert parallel == score_masks(mapping, benchmark / "seg")
    assert tuple(seen) == parallel.samples
    assert [s.num_frames for s in seen] == [4] * 9, "batches of one sample come together again"


def damaged_masks():
    whole = io.BytesIO()
    Image.fromarray(square(5).astype(np.uint8) * 255).save(whole, "PNG")
    png = whole.getvalue()
    other = io.BytesIO()
    Image.fromarray(square(5, shape=(40, 51)).astype(np.uint8)).save(other, "PNG")
    return {
        "truncated": (png[: len(png) // 2], "not a readable mask image"),
        "no image": (b"not a PNG at all", "not a readable mask image"),
        "no bytes": (b"", "not a readable mask image"),
        "too large": (png[:16] + b"\x00\x00\xea\x60" * 2 + png[24:], "not a readable mask image"),
        "another size": (
            other.getvalue(),
            r"is 51x40, its ground truth .*00000\.png is 50x40; masks must have the size of the "
            "video",
        ),
    }


@pytest.mark.parametrize("damage", damaged_masks())
def test_a_broken_prediction_costs_its_frame_alone(benchmark, damage):
    content, message = damaged_masks()[damage]
    (benchmark / "seg/s/a/00000.png").write_bytes(content)
    table = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg")
    a, b = table.samples
    assert (a.region, a.boundary, a.temporal, a.num_broken_frames, a.num_missing_frames) == (
        0.75,
        0.75,
        0.75,
        1,
        0,
    )
    assert len(a.faults) == 1
    assert re.search(r"seg/s/a/00000\.png: .*" + message, a.faults[0])
    assert b.region == 0.5
    assert b.faults == ()


def test_a_broken_truth_costs_its_frame_alone(benchmark):
    (benchmark / "truth/b/00000.png").write_bytes(b"")
    a, b = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples
    assert (a.region, b.region, b.num_broken_frames, b.num_missing_frames) == (1.0, 0.25, 1, 2)
    assert "truth/b/00000.png" in b.faults[0]


def test_many_faults_of_one_sample_are_summed_up(benchmark):
    for path in (benchmark / "seg/s/a").iterdir():
        path.write_bytes(b"")
    write_mask(benchmark / "truth/a/00004.png", square(5))
    (benchmark / "seg/s/a/00004.png").write_bytes(b"")
    faults = (
        score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples[0].faults
    )
    assert len(faults) == 4
    assert faults[-1] == "and 2 more frames of s/a"


@pytest.mark.parametrize("encode", ["palette", "16 bit", "one bit", "colour"])
def test_other_kinds_of_png_are_read_by_what_is_not_zero(benchmark, encode):
    for number in range(4):
        mask = square(5 + number)
        if encode == "palette":  # index 3 is as black as index 0: the index counts, not the colour
            image = Image.fromarray(mask.astype(np.uint8) * 3, "P")
            image.putpalette([0, 0, 0] * 4)
        elif encode == "16 bit":
            image = Image.fromarray(mask.astype(np.uint16) * 7)
        elif encode == "one bit":
            image = Image.fromarray(mask)
        else:
            image = Image.fromarray(np.repeat(mask[..., None].astype(np.uint8) * 128, 3, axis=2))
        image.save(benchmark / f"seg/s/a/{number:05d}.png")
    assert (
        score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples[0].region
        == 1.0
    )


# Rows 5 to 12, columns 10 to 17 of 40 x 50 pixels.
RUN_LENGTHS = {"frame": "00000", "size": [40, 50], "counts": "e<8P10000000000000kW1"}


def write_run_lengths(folder, *rows):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "masks.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_run_lengths_are_read_in_place_of_pngs(benchmark):
    write_run_lengths(benchmark / "seg/s/a", RUN_LENGTHS)
    a = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples[0]
    assert (a.region, a.num_missing_frames, a.faults) == (0.25, 3, ())


def test_broken_run_lengths_are_named(benchmark):
    write_run_lengths(
        benchmark / "seg/s/a", RUN_LENGTHS, RUN_LENGTHS | {"frame": "00001", "counts": "~"}
    )
    a = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples[0]
    assert (a.region, a.num_missing_frames, a.num_broken_frames) == (0.25, 2, 1)
    assert "seg/s/a/masks.jsonl frame 00001: run lengths: " in a.faults[0]
    (benchmark / "seg/s/a/masks.jsonl").write_text("{")
    a, b = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples
    assert (a.num_broken_frames, b.region) == (4, 0.5)
    assert "masks.jsonl line 1" in a.faults[0]


def test_masks_in_two_formats_are_not_chosen_between(benchmark):
    (benchmark / "seg/s/a/masks.jsonl").write_text(json.dumps(RUN_LENGTHS))
    a = score_masks(read_meta_mapping(benchmark / "map.json"), benchmark / "seg").samples[0]
    assert a.num_broken_frames == 4
    assert "holds PNGs and masks.jsonl" in a.faults[0]


def test_a_sample_without_ground_truth_counts_zero_and_is_named(benchmark):
    (benchmark / "hollow").mkdir()
    mapping = [
        *read_meta_mapping(benchmark / "map.json")[:1],
        MaskTruth("x", benchmark / "nowhere", "one-hop"),
        MaskTruth("y", benchmark / "hollow", "one-hop"),
    ]
    table = score_masks(mapping, benchmark / "seg")
    assert means(table.overall)["J"] == pytest.approx(100 / 3)
    assert table.overall.num_broken == 2
    assert "no ground truth for x" in table.samples[1].faults[0]
    assert "holds no PNG; y needs ground truth" in table.samples[2].faults[0]


def test_missing_folders_are_named(benchmark):
    mapping = read_meta_mapping(benchmark / "map.json")
    with pytest.raises(UsageError, match="nowhere: no such folder of masks; make it with"):
        score_masks(mapping, benchmark / "nowhere")
    with pytest.raises(UsageError, match="nowhere: no such ground-truth folder, nor any other"):
        score_masks([MaskTruth("x", benchmark / "nowhere", "")], benchmark / "seg")


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


def evaluate(benchmark, *options):
    return main(
        [
            "evaluate",
            str(benchmark / "seg"),
            "--truth",
            str(benchmark / "map.json"),
            "--workers",
            "1",
            *options,
        ]
    )


def test_the_command_prints_the_missing_and_writes_both_files(benchmark, capsys):
    (benchmark / "predictions.jsonl").write_text("")
    assert (
        main(
            [
                "evaluate",
                str(benchmark / "predictions.jsonl"),
                "--truth",
                str(benchmark / "map.json"),
                "--workers",
                "1",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "| overall | 2 | 75.00 | 75.00 | 75.00 | " in printed
    assert (
        "missing: 1 of 2 samples lack masks (2 frames), 0 of them all masks; each counts 0"
        in printed
    )
    result = json.loads((benchmark / "result.json").read_text())
    assert result["overall"]["JF"] == pytest.approx(75.0)
    assert result["samples"]["b"] == [0.5, 0.5, "multi-hop"]
    written = (benchmark / "result.md").read_text()
    assert all(line in printed for line in written.splitlines())
    assert "missing: 1 of 2" in written


def test_the_command_names_the_absent_and_gives_the_mean_without_them(benchmark, capsys):
    shutil.rmtree(benchmark / "seg/b")
    assert evaluate(benchmark) == 0
    printed = capsys.readouterr().out
    assert "| overall | 2 | 50.00 | 50.00 | 50.00 | " in printed
    assert "without any mask: b" in printed
    assert (
        "over the 1 samples that have masks, as OK-VOS's own evaluator counts: J 100.00, F 100.00, "
        "J&F 100.00" in printed
    )


def test_the_command_goes_on_after_a_broken_file_and_its_exit_code_tells(benchmark, capsys):
    (benchmark / "seg/s/a/00000.png").write_bytes(b"")
    assert evaluate(benchmark, "--json", str(benchmark / "out.json")) == 1
    captured = capsys.readouterr()
    assert "broken, counts 0: " in captured.err
    assert "seg/s/a/00000.png" in captured.err
    assert (
        "broken: 1 of 2 samples have files that cannot be judged (1 frames); each counts 0"
        in captured.out
    )
    assert list(json.loads((benchmark / "out.json").read_text())["broken"]) == ["s/a"]


def test_the_options_of_averaging_reach_the_result(benchmark, capsys):
    (benchmark / "truth/b/00003.png").unlink()
    assert evaluate(benchmark, "--average", "frames") == 0
    assert "| overall | 2 | 85.71 |" in capsys.readouterr().out
    assert evaluate(benchmark, "--inner-frames") == 0
    assert "| overall | 2 | 100.00 |" in capsys.readouterr().out


def test_the_table_is_shown_even_if_the_result_cannot_be_written(benchmark, capsys):
    (benchmark / "file").write_text("")
    assert evaluate(benchmark, "--json", str(benchmark / "file" / "out.json")) == 2
    captured = capsys.readouterr()
    assert "| overall |" in captured.out
    assert "cannot write" in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    "options", [["--truth", "none.json"], ["--truth", "map.json", "--workers", "0"]]
)
def test_the_command_says_what_is_wrong_in_one_line(benchmark, capsys, monkeypatch, options):
    monkeypatch.chdir(benchmark)
    assert main(["evaluate", "seg", *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("seg-research: ")
