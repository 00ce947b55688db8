"""Make or prepare a benchmark.

NAME is a benchmark that can be drawn, a benchmark reader of `seg_research/data/readers`, or a
reader of your own as `package.module:NAME`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tqdm import tqdm

from seg_common.arguments import Parser, at_least
from seg_common.registry import find_attribute, module_summary

if TYPE_CHECKING:
    from seg_research.data.parallel import Progress
    from seg_research.data.reader import BenchmarkReader

EXAMPLES = """examples:
  seg-research data mini --out outputs/mini --seed 0
  seg-research data okvos --root outputs/mini --split train --max_size 64 --min_size 64 \\
      --patch_factor 16
  seg-research data okvos --root data/OK_VOS --split test --num_frames 6 --max_size 448 \\
      --min_size 448 --model_type Qwen3VL
  seg-research data NAME --help                   options of one benchmark

"""


@runtime_checkable
class DataCommand(Protocol):
    """What `seg-research data NAME` runs.

    Attributes:
        summary: one line for its own `--help`; in the list of all, the first sentence of its
            module's docstring stands, which needs no import.
        unit: what progress counts, e.g. `video`.
    """

    summary: str
    unit: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, options: argparse.Namespace, progress: Progress) -> Sequence[str]:
        """Make or prepare it; return the lines to print."""
        ...


GENERATORS = {"mini": "seg_research.mini.command:COMMAND"}
"""Benchmarks that are drawn, not read: a `DataCommand` each, imported when it is asked for. Readers
need no line here: every module of `seg_research/data/readers` is found by its name.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the name; the rest is parsed by what it stands for."""
    parser.add_argument("name", metavar="NAME", help="benchmark, see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its options")
    parser.epilog = EXAMPLES + "benchmarks:\n" + "\n".join(_listed())


def _listed() -> Iterator[str]:
    from seg_research.data.readers import READERS

    drawn = {name: module_summary(place.partition(":")[0]) for name, place in GENERATORS.items()}
    for name, summary in (drawn | READERS.summaries()).items():
        yield f"  {name:10s} {summary}"


def _command(name: str) -> DataCommand:
    from seg_research.data.readers import READERS

    if name in GENERATORS or ":" in name:
        found = find_attribute(GENERATORS.get(name, name), object, "benchmark")
        if isinstance(found, DataCommand):
            return found
    return ReaderCommand(READERS.find(name))


def run(options: argparse.Namespace) -> int:
    """Make or prepare what was asked for."""
    command, chosen = read_arguments(options.name, options.rest)
    with _progress(options.name, command.unit) as progress:
        lines = command.run(chosen, progress)
    print(*lines, sep="\n")
    return 0


def read_arguments(name: str, rest: Sequence[str]) -> tuple[DataCommand, argparse.Namespace]:
    """Find a benchmark and read its options.

    Raises:
        UsageError: there is no such benchmark, or it has no such option.
    """
    command = _command(name)
    parser = Parser(prog=f"seg-research data {name}", description=command.summary)
    command.add_arguments(parser)
    parser.add_argument(
        "--workers", type=at_least(1), default=min(8, os.cpu_count() or 1), help="processes"
    )
    return command, parser.parse_args(rest)


class ReaderCommand:
    """Prepares one split of a benchmark that a reader reads."""

    unit = "row"

    def __init__(self, reader: BenchmarkReader) -> None:
        """Read with this reader."""
        self._reader = reader
        self.summary = f"Prepare one split of {reader.name} for training or evaluation."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options, which all readers share."""
        from seg_research.data.preparation import ModelType

        add = parser.add_argument
        add("--split", choices=self._reader.splits, required=True, help="part of the benchmark")
        add("--root", type=Path, default=self._reader.root, help="folder of the benchmark")
        add("--num_frames", type=int, default=6, help="frames offered to the policy")
        add(
            "--max_size",
            type=int,
            default=448,
            help="longer side of a shown frame, rounded up to whole patches",
        )
        add(
            "--min_size",
            type=int,
            default=448,
            help="shorter side; equal sides squash to a square",
        )
        add(
            "--model_type",
            choices=tuple(ModelType),
            default=ModelType.QWEN3_VL,
            help="coordinates and patch size",
        )
        add(
            "--patch_factor",
            type=int,
            default=None,
            help="pixels a visual token covers, if not the model type's",
        )
        add("--seed", type=int, default=0, help="fixes the frames drawn for train samples")
        add("--skip-bad", action="store_true", help="leave faulty rows out (train only)")

    def run(self, options: argparse.Namespace, progress: Progress) -> list[str]:
        """Prepare the split."""
        from seg_research.data.preparation import ModelType, Preparation
        from seg_research.data.prepare import prepare
        from seg_research.data.splits import Split

        preparation = Preparation(
            split=Split(options.split),
            num_frames=options.num_frames,
            max_size_px=options.max_size,
            min_size_px=options.min_size,
            model_type=ModelType(options.model_type),
            patch_factor=options.patch_factor,
            seed=options.seed,
            skip_bad=options.skip_bad,
        )
        prepared = prepare(self._reader, options.root, preparation, options.workers, progress)
        told = f"{prepared.path}: {prepared.num_rows} rows"
        if not prepared.skipped:
            return [told]
        complaints = [f"  {complaint}" for complaint in prepared.skipped]
        return [f"{told}, {len(prepared.skipped)} left out:", *complaints]


@contextmanager
def _progress(what: str, unit: str) -> Generator[Progress]:
    """Show a bar on stderr; nothing is shown until the first report."""
    with tqdm(desc=what, unit=unit, file=sys.stderr, dynamic_ncols=True, delay=0.2) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
