"""Build, judge and plan indexes of local corpora for the search server.

`build` makes an index folder (kill it and run it again: it goes on where it was), `eval` compares
an approximate index with exact search, `plan` tells memory, disk, time and searches a second before
anything is built or loaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_server import DEFAULT_ENCODER
from retrieval_server.options import RETRIEVERS
from seg_common.arguments import add_job, at_least
from seg_common.errors import UsageError
from seg_common.files import read_jsonl
from seg_research.cli.progress import entry_progress

if TYPE_CHECKING:
    from retrieval_server.corpus.capacity import CorpusShape
    from retrieval_server.schemas import CollectionKind

EXAMPLES = """examples:
  seg-research index plan --entries 1000000 --type hnsw
  seg-research index build --text outputs/mini/local_KB/text_corpus.jsonl \\
      --out outputs/mini/text_index --retriever hybrid
  seg-research index eval --text outputs/mini/local_KB/text_corpus.jsonl \\
      --index outputs/mini/text_index
  seg-research serve --text outputs/mini/local_KB/text_corpus.jsonl \\
      --text-index outputs/mini/text_index --retriever hybrid
"""
_ENTRY_BYTES = 600
"""Of a passage of some hundred words, where only the number of entries is given."""
_SAMPLE_ENTRIES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the three jobs."""
    jobs = parser.add_subparsers(dest="job", required=True, metavar="build|eval|plan")
    build = add_job(jobs, "build", "make an index folder")
    _add_corpus(build, required=True)
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the index")
    _add_shape(build)
    judge = add_job(jobs, "eval", "recall@k against exact search")
    _add_corpus(judge, required=True)
    judge.add_argument(
        "--index", type=Path, required=True, metavar="DIR", help="folder of the index"
    )
    judge.add_argument(
        "--queries",
        type=at_least(1),
        default=200,
        metavar="N",
        help="titles of so many entries are looked up",
    )
    _add_encoder(judge)
    plan = add_job(jobs, "plan", "expected memory, disk and speed")
    _add_corpus(plan, required=False)
    plan.add_argument(
        "--entries", type=at_least(1), metavar="N", help="size of a corpus that is not at hand"
    )
    _add_shape(plan)


def _add_corpus(parser: argparse.ArgumentParser, *, required: bool) -> None:
    corpus = parser.add_mutually_exclusive_group(required=required)
    corpus.add_argument("--text", type=Path, metavar="CORPUS.jsonl", help="passages")
    corpus.add_argument(
        "--images", type=Path, metavar="CORPUS.jsonl", help="images, found by their titles"
    )


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retriever",
        choices=RETRIEVERS,
        default="dense",
        help="hybrid serves all three",
    )
    parser.add_argument(
        "--type",
        choices=("flat", "hnsw", "ivfpq"),
        default="flat",
        help="flat is exact; the others are for 10^5 entries and more",
    )
    _add_encoder(parser)


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder",
        default=DEFAULT_ENCODER,
        metavar="PATH_OR_NAME",
        help="sentence-transformers model",
    )
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads")


def run(options: argparse.Namespace) -> int:
    """Do the job."""
    try:
        return {"build": _build, "eval": _eval, "plan": _plan}[options.job](options)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed; install it with: pip install 'seg-research[retrieval]'"
        ) from None


def _corpus_of(options: argparse.Namespace) -> tuple[CollectionKind, Path]:
    from retrieval_server.schemas import CollectionKind

    return (
        (CollectionKind.IMAGE, options.images)
        if options.images
        else (CollectionKind.TEXT, options.text)
    )


def _build(options: argparse.Namespace) -> int:
    from retrieval_server.corpus.collection import load_corpus
    from retrieval_server.corpus.index import build_folder
    from retrieval_server.corpus.ranking import Retriever
    from retrieval_server.corpus.vectors import IndexType, set_threads
    from retrieval_server.encoder import load_encoder

    collection, retriever = load_corpus(*_corpus_of(options)), Retriever(options.retriever)
    encoder = (
        load_encoder(options.encoder, num_threads=options.threads)
        if retriever.uses_vectors
        else None
    )
    set_threads(options.threads)
    manifest = build_folder(
        options.out, collection, encoder, retriever, IndexType(options.type), entry_progress
    )
    what = (
        f"{manifest.retriever}, {manifest.type}, encoder {manifest.encoder}"
        if encoder
        else manifest.retriever
    )
    sys.stdout.write(
        f"{options.out}: {manifest.num_entries} entries of {manifest.corpus} ({what})\n"
    )
    return 0


def _eval(options: argparse.Namespace) -> int:
    import numpy as np

    from retrieval_server.corpus.index import open_folder
    from retrieval_server.corpus.ranking import Retriever
    from retrieval_server.corpus.vectors import FlatIndex, set_threads
    from retrieval_server.encoder import QueryVectorCache, load_encoder

    memory = QueryVectorCache(load_encoder(options.encoder, num_threads=options.threads))
    set_threads(options.threads)
    opened = open_folder(options.index, *_corpus_of(options), memory, Retriever.DENSE)
    assert opened.dense is not None
    rows = np.linspace(
        0, len(opened.collection) - 1, min(options.queries, len(opened.collection))
    ).astype(int)
    queries_QD = memory.embed([opened.collection[int(row)].title for row in rows])
    exact = FlatIndex(np.load(options.index / "vectors.npy", mmap_mode="r")).search(queries_QD, 10)
    started = time.perf_counter()
    found = opened.dense.index.search(queries_QD, 10)
    took_s = (time.perf_counter() - started) / len(rows)
    for k in (1, 3, 10):
        shares = [
            len({hit.row for hit in ours[:k]} & {hit.row for hit in theirs[:k]}) / len(theirs[:k])
            for ours, theirs in zip(found, exact, strict=True)
        ]
        sys.stdout.write(f"recall@{k:<3} {np.mean(shares):.3f}\n")
    sys.stdout.write(
        f"search    {took_s * 1e3:.2f} ms a query, without embedding ({len(rows)} titles of"
        f" {len(opened.collection)} entries)\n"
    )
    return 0


def _plan(options: argparse.Namespace) -> int:
    from retrieval_server.corpus.capacity import CorpusShape, make_plan
    from retrieval_server.corpus.ranking import Retriever
    from retrieval_server.corpus.vectors import IndexType, set_threads
    from retrieval_server.encoder import load_encoder

    if (options.entries is None) == (options.text is None and options.images is None):
        raise UsageError(
            "name a corpus (--text or --images) or the size of one (--entries N), not both"
        )
    passages = ["x" * 5 + " word" * 110]
    if options.entries is not None:
        shape = CorpusShape(options.entries, options.entries * _ENTRY_BYTES)
    else:
        _, path = _corpus_of(options)
        shape, passages = _shape_of(path)
    retriever, kind = Retriever(options.retriever), IndexType(options.type)
    encoder = (
        load_encoder(options.encoder, num_threads=options.threads)
        if retriever.uses_vectors
        else None
    )
    set_threads(options.threads)
    plan = make_plan(
        shape, retriever, kind, encoder, passages * (_SAMPLE_ENTRIES // len(passages) or 1)
    )
    parts = ", ".join(f"{name} {num_bytes / 1e6:,.0f}" for name, num_bytes in plan.memory.items())
    lines = [
        f"entries   {shape.num_entries:,}",
        f"memory    {plan.memory_bytes / 1e6:,.0f} MB ({parts})",
        f"disk      {plan.disk_bytes / 1e6:,.0f} MB",
        (
            f"build     about {_duration(plan.build_s)} of embedding"
            if encoder
            else "build     minutes at most"
        ),
        (
            f"searches  about {plan.searches_per_s:,.0f} a second with {options.threads} thread(s):"
            f" embedding alone {plan.embedded_per_s:,.0f}, ranking alone {plan.ranked_per_s:,.0f}"
        ),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _shape_of(path: Path) -> tuple[CorpusShape, list[str]]:
    """Count lines and take some entries, without parsing the rest."""
    from itertools import islice

    from retrieval_server.corpus.capacity import CorpusShape

    sample = [
        str(record.get("contents") or record.get("name") or "")
        for record in islice(read_jsonl(path), _SAMPLE_ENTRIES)
    ]
    with path.open("rb") as handle:
        num_entries = sum(1 for line in handle if line.strip())
    return CorpusShape(max(1, num_entries), path.stat().st_size), sample or ["empty"]


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} hours"
        if seconds > 5400
        else f"{seconds / 60:.0f} minutes"
        if seconds > 90
        else f"{seconds:.0f} seconds"
    )
