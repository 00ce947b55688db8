"""Draw the mini benchmark from a seed: videos, exact masks and a knowledge base."""

from __future__ import annotations

import argparse
from pathlib import Path

from seg_common.errors import UsageError
from seg_research.data.parallel import Progress
from seg_research.mini.writer import MiniSizes, write_mini


class MiniCommand:
    """Draws the mini benchmark from a seed."""

    summary = "Draw the mini benchmark from a seed: videos, exact masks and a knowledge base."
    unit = "video"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--out", type=Path, required=True, help="folder to create")
        parser.add_argument(
            "--seed", type=int, default=0, help="the same seed gives the same bytes"
        )
        sizes = MiniSizes()
        for split, count in (("train", sizes.train), ("val", sizes.val), ("test", sizes.test)):
            told = f"number of {split} questions, four a video"
            parser.add_argument(f"--{split}", type=int, default=count, help=told)
        parser.add_argument(
            "--force",
            action="store_true",
            help="delete a mini benchmark made with other arguments, and its folder, first",
        )

    def run(self, options: argparse.Namespace, progress: Progress) -> list[str]:
        """Draw it, unless the folder holds it already."""
        sizes = MiniSizes(options.train, options.val, options.test)
        counts = (sizes.train, sizes.val, sizes.test)
        if min(counts) < 0 or not any(counts):
            raise UsageError(
                f"--train {sizes.train} --val {sizes.val} --test {sizes.test}: expected counts of "
                "at least 0, one of them above"
            )
        manifest = write_mini(
            options.out, options.seed, sizes, options.workers, progress, force=options.force
        )
        found = (
            f"{sizes.train} train, {sizes.val} val and {sizes.test} test questions about "
            f"{manifest.num_videos} videos, {manifest.num_passages} passages, "
            f"{manifest.num_images} images, {manifest.num_bytes / 1e6:.1f} MB"
        )
        if not manifest.new:
            found = f"nothing to do, holds {found} of this seed already"
        return [f"{options.out}: {found}", f"content sha256 {manifest.content_sha256}"]


COMMAND = MiniCommand()
