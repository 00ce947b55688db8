"""Average the weights of two checkpoints of one model, e.g. before and after imitation; the rest is
copied from the second.

The mean of a model and of its fine-tuned copy keeps more of what the first could do than the copy
does (WiSE-FT, Wortsman et al. 2022).

python examples/train/mini/average.py outputs/mini_coldstart/base outputs/mini_coldstart/sft/policy
outputs/mini_coldstart/policy
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def main() -> int:
    """Write the folder, at once or not at all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, metavar="FOLDER")
    parser.add_argument("second", type=Path, metavar="FOLDER")
    parser.add_argument("out", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    first, second = (load_file(folder / WEIGHTS) for folder in (options.first, options.second))
    if {name: tensor.shape for name, tensor in first.items()} != {
        name: tensor.shape for name, tensor in second.items()
    }:
        print(
            f"average.py: {options.first} and {options.second} are not of one model",
            file=sys.stderr,
        )
        return 1
    staged = options.out.with_name(f".{options.out.name}")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(options.second, staged)
    mean = {name: (first[name].float() + second[name].float()) / 2 for name in first}
    save_file(mean, staged / WEIGHTS, metadata={"format": "pt"})
    staged.rename(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
