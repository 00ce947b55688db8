"""Prepare a split of OK-VOS (or of the mini benchmark): the same as `seg-research data okvos`.

python examples/data_preprocess/okvos.py --split train --num_frames 6 --max_size 448 --min_size 448
--model_type Qwen3VL
"""

import sys

from seg_research.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["data", "okvos", *sys.argv[1:]]))
