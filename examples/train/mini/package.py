"""Put a cold-started model into the package: weights in bf16, what an examination of these weights
found (`acceptance_checks.json`), and a model card that says so and how they were made.

python examples/train/mini/package.py outputs/mini_coldstart
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seg_research.mini import COLD_START as TARGET
from seg_research.mini.folder import MiniFolder
from seg_research.mini.writer import read_manifest

sys.path.insert(0, str(Path(__file__).parent))
from acceptance_checks import RESULT_NAME, AcceptanceRun

ROOT = Path(__file__).parents[3]
_PACKAGES = ("torch", "transformers", "verl", "numpy", "opencv-python-headless")
_LARGEST_MB = 20

_CARD = """# mini_coldstart

A Qwen3-VL of {millions:.2f} million parameters that reads, points and searches on the project's
`mini` benchmark, and on nothing else. It is where the experiments of `examples/train/mini` start.
Trained on a CPU from a seed; nothing of it comes from another model.

* **Command**: `bash examples/train/mini/coldstart.sh` (seed {seed})
{made}* **Data**: drawn by this repository; names of the test split occur in no training example.
  What the training examples are: `docs/mini.md`
* **Files**: {size_mb:.1f} MB, bf16; `model.safetensors` has SHA-256 `{digest}`
* **Made with**: {versions}; commit `{commit}`

## What it can do

Greedy, on {questions} questions of `mini` seed {data_seed}, test split, in the real loop:

| | reached | wanted |
|---|---|---|
{checks}

| J&F with GrabCut | |
|---|---|
{scores}

It knows ten shapes, seven colours, one way to phrase each question, and two passages at a time.
"""


def main() -> int:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="FOLDER", help="what coldstart.sh wrote")
    parser.add_argument(
        "--made",
        metavar="TEXT",
        help="a line for the card, where these weights were not made by the command in one piece",
    )
    parser.add_argument("--seed", type=int, default=0, help="that it was made with (default 0)")
    options = parser.parse_args()
    count = _write_weights(options.run / "policy")
    data, out = MiniFolder(options.run / "examination"), options.run / "checks_packaged"
    shutil.rmtree(out, ignore_errors=True)
    AcceptanceRun(TARGET, data, out, threads=1).run()
    report: dict[str, Any] = json.loads((out / RESULT_NAME).read_text(encoding="utf-8"))
    manifest = read_manifest(data.root)
    weights = TARGET / "model.safetensors"
    size_mb = sum(path.stat().st_size for path in TARGET.iterdir()) / 1e6
    if size_mb > _LARGEST_MB:
        raise SystemExit(f"{TARGET}: {size_mb:.1f} MB, more than {_LARGEST_MB}")
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    card = _CARD.format(
        millions=count / 1e6,
        seed=options.seed,
        made=f"* **This copy**: {options.made}\n" if options.made else "",
        data_seed=manifest.seed if manifest else "?",
        size_mb=size_mb,
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        versions=", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        commit=commit.stdout.strip(),
        questions=report["questions"],
        checks="\n".join(
            f"| {check['name']} | {check['value']:.3f} | {check['wanted']:g} |"
            for check in report["checks"]
        ),
        scores="\n".join(f"| {name} | {score:.1f} |" for name, score in report["J&F"].items()),
    )
    (TARGET / "README.md").write_text(card, encoding="utf-8")
    shutil.copyfile(out / RESULT_NAME, TARGET / RESULT_NAME)
    print(f"{TARGET}: {size_mb:.1f} MB")
    return 0


def _write_weights(source: Path) -> int:
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.bfloat16)
    TARGET.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(TARGET)
    (TARGET / "model.safetensors").chmod(0o644)
    for path in source.iterdir():
        if (
            path.is_file()
            and path.suffix in {".json", ".jinja"}
            and path.name not in {"config.json", "training.json"}
        ):
            shutil.copyfile(path, TARGET / path.name)
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    sys.exit(main())
