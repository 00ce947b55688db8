"""The commands of the README, run as they stand there but for smaller numbers, in a folder with the
checkout's programs and a mini benchmark as `data/OK_VOS`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
SMALLER = {
    "--seed 0": "--seed 0 --train 8 --val 4 --test 8",
    "data.train_batch_size=8": "data.train_batch_size=2",
    "ppo_mini_batch_size=8": "ppo_mini_batch_size=2",
    "total_training_steps=6": "total_training_steps=1",
}


def run(script, cwd):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.verl
def test_the_stages_work_as_the_readme_gives_them(tmp_path):
    (block,) = [block for block in BLOCKS if "seg-research data mini" in block]
    block = block.replace("source .venv/bin/activate\n", "")
    for number, smaller in SMALLER.items():
        assert block.count(number) == 1, number
        block = block.replace(number, smaller)
    run(block, tmp_path)
    judged = tmp_path / "outputs" / "eval"
    assert (tmp_path / "outputs" / "grpo" / "policy" / "model.safetensors").is_file()
    assert (judged / "result.json").is_file()
    assert (judged / "report.html").stat().st_size > 20_000
    assert len((judged / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 8


@pytest.mark.slow
def test_the_ok_vos_command_prepares_a_benchmark_of_that_layout(tmp_path):
    (block,) = [block for block in BLOCKS if "examples/data_preprocess/okvos.py" in block]
    run("seg-research data mini --out data/OK_VOS --train 8 --val 4 --test 4", tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run(block, tmp_path)
    assert (tmp_path / "data" / "OK_VOS" / "train_6_448_448.parquet").is_file()
