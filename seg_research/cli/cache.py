"""Show, export or import recorded web searches: the file that `seg-research serve --cache-file`
writes.

An export is one compact file, taken also while a server writes the original; a server can replay it
as it is. An import adds what is missing and, of two answers to one question, keeps the newer.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

from seg_common.arguments import add_job

EXAMPLES = """examples:
  seg-research cache stats searches.sqlite
  seg-research cache export searches.sqlite for-the-paper.sqlite
  seg-research cache import searches.sqlite from-a-colleague.sqlite
  seg-research serve --provider serper --cache-mode replay --cache-file for-the-paper.sqlite
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = add_job(actions, "stats", "count what a file holds")
    stats.add_argument("file", type=Path, metavar="F.sqlite")
    export = add_job(actions, "export", "write a copy that is one compact file")
    export.add_argument("file", type=Path, metavar="F.sqlite")
    export.add_argument("to", type=Path, metavar="TO.sqlite")
    take = add_job(actions, "import", "take the answers of another file")
    take.add_argument("file", type=Path, metavar="F.sqlite", help="made where there is none")
    take.add_argument("source", type=Path, metavar="FROM.sqlite")


def run(options: argparse.Namespace) -> int:
    """Do it and say what there is now."""
    from retrieval_server.cache_file import export_cache, import_cache, stats_of

    if options.action == "export":
        export_cache(options.file, options.to)
        _show(options.to)
    elif options.action == "import":
        total = sum(stats_of(options.source).num_answers.values())
        with tqdm(total=total, unit="answer", desc="import", file=sys.stderr, disable=None) as bar:
            num_taken = import_cache(options.file, options.source, progress=bar.update)
        print(f"{num_taken} of {total} answers were missing or older")
        _show(options.file)
    else:
        _show(options.file)
    return 0


def _show(path: Path) -> None:
    from retrieval_server.cache_file import stats_of

    stats = stats_of(path)
    print(
        f"{path}: {sum(stats.num_answers.values())} answers, {stats.num_images} images,"
        f" {stats.num_bytes / 1e6:.1f} MB"
    )
    for what, count in stats.num_answers.items():
        print(f"  {what}: {count}")
    if stats.oldest is not None and stats.newest is not None:
        first, last = (
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
            for moment in (stats.oldest, stats.newest)
        )
        print(f"  from {first} to {last} UTC")
