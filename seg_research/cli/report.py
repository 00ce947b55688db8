"""Write one HTML page about a run: table of results, learning curves, a dozen trajectories with
frames, searches, boxes and masks.

The page holds everything it shows and opens from a disk. What a run folder may contain is described
in docs/report.md; whatever is missing is named on the page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  seg-research report --run outputs/demo
  seg-research report --run outputs/demo --out demo.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--run",
        dest="run_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with summary.json, curve.jsonl or predictions.jsonl",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page to write (default: DIR/report.html)"
    )


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from seg_research.viewer.page import write_report

    out: Path = options.out or options.run_dir / "report.html"
    write_report(options.run_dir, out)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return 0
