"""The original's command: `python post_segmentation/sam2_okvos.py PREDICTIONS [--vis]` is the
installed command `seg-research segment PREDICTIONS` under another name.
"""

import sys
from importlib.metadata import entry_points

if __name__ == "__main__":
    (command,) = entry_points(group="console_scripts", name="seg-research")
    sys.exit(command.load()(["segment", *sys.argv[1:]]))
