"""The original's command: `python post_segmentation/sam2_okvos.py PREDICTIONS [--vis]`, the same as
`seg-research segment PREDICTIONS`.
"""

import sys

from seg_research.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["segment", *sys.argv[1:]]))
