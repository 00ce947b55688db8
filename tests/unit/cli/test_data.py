"""`seg-research data`: a benchmark is made and prepared, and every mistake is one line with exit
code 2.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from seg_research.cli.main import EXIT_USAGE, main
from seg_research.data.rows import check_paths, read_samples

REPO = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "mini"
    assert (
        main(
            [
                "data",
                "mini",
                "--out",
                str(out),
                "--seed",
                "5",
                "--train",
                "4",
                "--val",
                "0",
                "--test",
                "4",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return out


def test_mini_then_okvos_gives_samples_whose_files_exist(mini, capsys):
    for split in ("train", "test"):
        sizes = ["--max_size", "64", "--min_size", "64", "--patch_factor", "16", "--workers", "1"]
        assert main(["data", "okvos", "--root", str(mini), "--split", split, *sizes]) == 0
        samples = read_samples(mini / f"{split}_6_64_64.parquet")
        check_paths(samples)
        assert len(samples) == 4
        assert all(sample.truth.single().frames for sample in samples)
        assert {sample.ability for sample in samples} == {
            "in-video",
            "one-hop",
            "multi-hop",
            "relational",
        }
    assert "test_6_64_64.parquet: 4 rows" in capsys.readouterr().out


def test_mini_again_says_that_there_is_nothing_to_do(mini, capsys):
    assert (
        main(
            [
                "data",
                "mini",
                "--out",
                str(mini),
                "--seed",
                "5",
                "--train",
                "4",
                "--val",
                "0",
                "--test",
                "4",
            ]
        )
        == 0
    )
    assert "nothing to do" in capsys.readouterr().out


def test_mini_with_another_seed_is_refused(mini, capsys):
    assert main(["data", "mini", "--out", str(mini), "--seed", "6"]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "--force" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "counts", [["--train", "-1"], ["--train", "0", "--val", "0", "--test", "0"]]
)
def test_impossible_counts_are_refused(tmp_path, capsys, counts):
    assert main(["data", "mini", "--out", str(tmp_path / "x"), *counts]) == EXIT_USAGE
    assert "expected counts" in capsys.readouterr().err


def test_a_split_that_is_empty_is_told(mini, capsys):
    assert main(["data", "okvos", "--root", str(mini), "--split", "val"]) == EXIT_USAGE
    assert "the file is empty" in capsys.readouterr().err


def test_the_example_script_takes_the_original_options(mini):
    script = REPO / "examples" / "data_preprocess" / "okvos.py"
    options = [
        "--split",
        "train",
        "--num_frames",
        "6",
        "--max_size",
        "448",
        "--min_size",
        "448",
        "--model_type",
        "Qwen3VL",
        "--workers",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, script, *options, "--root", mini],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(read_samples(mini / "train_6_448_448.parquet")) == 4


def test_the_example_script_tells_mistakes_in_one_line(tmp_path):
    script = REPO / "examples" / "data_preprocess" / "okvos.py"
    done = subprocess.run(
        [sys.executable, script, "--split", "train", "--root", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_USAGE
    assert done.stderr.count("\n") == 1
    assert "no such file" in done.stderr


def test_skipped_rows_are_listed(mini, capsys):
    victim = next((mini / "train" / "JPEGImages" / "train_0000").iterdir())
    content = victim.read_bytes()
    victim.unlink()
    try:
        assert (
            main(
                [
                    "data",
                    "okvos",
                    "--root",
                    str(mini),
                    "--split",
                    "train",
                    "--skip-bad",
                    "--workers",
                    "1",
                ]
            )
            == EXIT_USAGE
        )
        assert "no usable row" in capsys.readouterr().err
    finally:
        victim.write_bytes(content)
