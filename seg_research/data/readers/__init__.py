"""Benchmark readers, one module a benchmark: each offers a `BenchmarkReader` named `SPEC`, and
`seg-research data NAME` runs the one whose module is called NAME (`okvos`), or any other as
`package.module:NAME`. The first sentence of its docstring is its line in `--help`.
"""

from __future__ import annotations

from seg_common.registry import Registry
from seg_research.data.reader import BenchmarkReader

READERS = Registry(__name__, BenchmarkReader, "benchmark reader")
