"""The search server under load: requests a second, p50/p95/p99, memory and start-up time, over HTTP
on this machine alone.

Corpora are synthetic; beyond the smallest, their vectors are random and only the queries are
embedded for real. "Uncached" queries are all different; "cached" ones repeat. "Encoder" is the rate
of the encoder alone, measured before in this process with as many threads, and "of encoder" how
close the server comes to it while it shares the cores with the clients.

    python benchmarks/retrieval.py                            186 and 10^5 passages, some minutes
    python benchmarks/retrieval.py --million                  and 10^6, flat and IVF-PQ; takes 5 GB
    of disk and a quarter of an hour python benchmarks/retrieval.py --sizes 186 --soak 50000
    memory over so many requests
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from retrieval_server import DEFAULT_ENCODER
from retrieval_server.corpus.capacity import CorpusShape, make_plan
from retrieval_server.corpus.collection import load_corpus
from retrieval_server.corpus.index import build_folder
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.corpus.vectors import IndexType, set_threads
from retrieval_server.encoder import Encoder, Role, load_encoder
from retrieval_server.schemas import CollectionKind
from retrieval_server.server import running_server

SMALL = 186
WORDS = (  # noqa: SIM905 - a list literal is no easier to read
    "harbour emblem painter kite river stadium anthem bridge comet general festival orchard glacier"
    " mayor theatre engine league museum garden captain island temple railway desert singer ocean"
    " mountain castle reactor novel"
).split()


class RandomVectors:
    """Stands in for the encoder while passages are embedded: a million of them would take a day."""

    def __init__(self, real: Encoder) -> None:
        self.name, self._real = real.name, real
        self._draw = np.random.default_rng(0)

    def encode(
        self,
        texts: Sequence[str],
        role: Role = Role.QUERY,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        if len(texts) == 1:  # the probe by which the server knows its encoder
            return self._real.encode(texts, role)
        rows_ND = self._draw.standard_normal((len(texts), 384), np.float32)
        if progress:
            progress(len(texts))
        return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)


@dataclass(frozen=True)
class Load:
    """What one round of requests was like."""

    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    refused: int


def queries(salt: str) -> Iterator[str]:
    """Never the same twice: about a dozen tokens, as policies write them."""
    for number in itertools.count():
        word = WORDS[number % len(WORDS)]
        yield (
            f"who designed the {word} of {WORDS[number // len(WORDS) % len(WORDS)]} number {number}"
            f" in {salt}"
        )


async def load(url: str, concurrency: int, seconds: float, asked: Iterator[str]) -> Load:
    """Keep so many requests under way for a while."""
    host, port = url.removeprefix("http://").split(":")
    took_s: list[float] = []
    refused = 0
    started = time.perf_counter()

    async def client() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection(host, int(port))
        for query in asked:
            if time.perf_counter() - started > seconds:
                break
            body = json.dumps({"query": query, "top_k": 3}).encode()
            head = (
                f"POST /search HTTP/1.1\r\nHost: {host}\r\nContent-Type:"
                f" application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            sent = time.perf_counter()
            writer.write(head.encode() + body)
            reply = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in reply.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            if reply.startswith(b"HTTP/1.1 200"):
                took_s.append(time.perf_counter() - sent)
            else:
                refused += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(concurrency)))
    elapsed_s = time.perf_counter() - started
    p50, p95, p99 = np.percentile(np.array(took_s) * 1e3, [50, 95, 99])
    return Load(len(took_s) / elapsed_s, p50, p95, p99, refused)


def memory_mb(url: str) -> float:
    """Ask the server for its resident memory."""
    lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    return (
        next(
            float(line.split()[1])
            for line in lines
            if line.startswith("process_resident_memory_bytes")
        )
        / 1e6
    )


def corpus_of(num: int, folder: Path) -> Path:
    """Write passages of about 60 words, once."""
    path = folder / f"corpus-{num}.jsonl"
    if not path.exists():
        with path.open("w") as handle:
            for i in range(num):
                text = " ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(60))
                handle.write(
                    json.dumps({"id": i, "contents": f"{WORDS[i % len(WORDS)]} {i}\n{text}"}) + "\n"
                )
    return path


def show(line: str) -> None:
    """Print at once: a round takes a while."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def measure(
    num: int, kind: IndexType, options: argparse.Namespace, encoder: Encoder, folder: Path
) -> None:
    """Build, plan, start and load one server."""
    corpus = corpus_of(num, folder)
    index = folder / f"index-{num}-{kind}"
    began = time.perf_counter()
    passages = encoder if num <= SMALL else RandomVectors(encoder)
    build_folder(index, load_corpus(CollectionKind.TEXT, corpus), passages, Retriever.DENSE, kind)
    built_s = time.perf_counter() - began
    shape = CorpusShape(num, corpus.stat().st_size)
    plan = make_plan(shape, Retriever.DENSE, kind, encoder, ["word " * 60] * 8)
    began = time.perf_counter()
    arguments = ["--text-index", str(index), "--max-waiting", "1024"]
    with running_server(
        corpus, num_threads=options.threads, options=arguments, start_deadline_s=600
    ) as url:
        started_s = time.perf_counter() - began
        show(
            f"\n{num:,} passages, {kind}: built in {built_s:.1f} s, server up in {started_s:.1f} s,"
            f" {memory_mb(url):.0f} MB at first"
        )
        show(
            f"planned: {plan.memory_bytes / 1e6:.0f} MB, {plan.searches_per_s:.0f}/s; encoder alone"
            f" {plan.embedded_per_s:.0f}/s"
        )
        show(
            "| queries | clients | requests/s | of encoder | p50 ms | p95 ms | p99 ms | refused"
            " |\n|---|---|---|---|---|---|---|---|"
        )
        for concurrency in options.concurrency:
            found = asyncio.run(
                load(url, concurrency, options.seconds, queries(f"{num}{kind}{concurrency}"))
            )
            show(row("uncached", concurrency, found, f"{found.per_s / plan.embedded_per_s:.0%}"))
        repeated = list(itertools.islice(queries("repeated"), 100))
        asyncio.run(load(url, 16, float("inf"), iter(repeated)))
        for concurrency in options.concurrency:
            found = asyncio.run(
                load(url, concurrency, options.seconds / 2, itertools.cycle(repeated))
            )
            show(row("cached", concurrency, found, ""))
        show(f"memory: {memory_mb(url):.0f} MB after this")
        if options.soak:
            soak(url, options.soak)


def row(what: str, concurrency: int, found: Load, share: str) -> str:
    """Format one line of the table."""
    times = f"{found.p50_ms:.0f} | {found.p95_ms:.0f} | {found.p99_ms:.0f}"
    return f"| {what} | {concurrency} | {found.per_s:.0f} | {share} | {times} | {found.refused} |"


def soak(url: str, num_requests: int) -> None:
    """Ask many different queries and watch the memory."""
    asked, left, shown = queries("soak"), num_requests, [memory_mb(url)]
    while left > 0:
        part = list(itertools.islice(asked, min(left, num_requests // 5)))
        asyncio.run(load(url, 64, float("inf"), iter(part)))
        left -= len(part)
        shown.append(memory_mb(url))
    show(
        f"memory over {num_requests:,} different requests: "
        + " → ".join(f"{value:.0f}" for value in shown)
        + " MB"
    )


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[SMALL, 100_000], help="passages")
    parser.add_argument("--million", action="store_true", help="add 10^6 passages")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 16, 64, 256], help="clients at once"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round")
    parser.add_argument("--threads", type=int, default=1, help="of the server's encoder")
    parser.add_argument(
        "--soak", type=int, default=0, help="further requests, to see whether memory stays flat"
    )
    parser.add_argument("--folder", type=Path, help="keep corpora and indexes here")
    options = parser.parse_args()
    encoder = load_encoder(DEFAULT_ENCODER, num_threads=options.threads)
    set_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kinds = [(num, IndexType.FLAT) for num in options.sizes]
        kinds += (
            [(1_000_000, IndexType.FLAT), (1_000_000, IndexType.IVFPQ)] if options.million else []
        )
        for num, kind in kinds:
            measure(num, kind, options, encoder, folder)


if __name__ == "__main__":
    main()
