"""What BM25, MiniLM and both fused find for the queries that real policies wrote, judged by what
those policies were shown.

Queries and shown titles come from recorded rollouts of the original system, which searched the same
corpora with E5 (two passages or one picture a query). So this is agreement with another encoder and
no human judgement: recall@k is the share of queries whose first shown title is among our first k,
and "shown" the share of all shown titles among our first three.

    python benchmarks/retrieval_quality.py                   needs the recordings: ../shared/data
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from retrieval_server import DEFAULT_ENCODER
from retrieval_server.corpus.collection import Collection, load_corpus
from retrieval_server.corpus.index import build_in_memory
from retrieval_server.corpus.ranking import Retriever
from retrieval_server.encoder import QueryVectorCache, load_encoder
from retrieval_server.schemas import CollectionKind

SHARED = Path(__file__).parents[2] / "shared" / "data"
TOOL_OF = {CollectionKind.TEXT: "text_search", CollectionKind.IMAGE: "image_search"}
SEARCH = re.compile(r"<search>(.*?)</search>", re.DOTALL)
SHOWN = re.compile(r"^(?:<information>)?\d+\. \(Title: (.*)$", re.MULTILINE)


def recorded_searches(folder: Path, kind: CollectionKind, titles: set[str]) -> dict[str, list[str]]:
    """Map each distinct query to the titles that it was answered with, best first."""
    searches: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            for turn in json.loads(line)["tool_interact_info"]:
                for query in _queries(turn["action"], TOOL_OF[kind]):
                    shown = [_title(line, titles) for line in SHOWN.findall(turn["obs"])]
                    if shown and all(shown):
                        searches[query] = [title for title in shown if title]
    return searches


def _queries(action: str, tool: str) -> Iterator[str]:
    for block in SEARCH.findall(action)[-1:]:
        try:
            call = json.loads(block)
        except ValueError:
            continue
        if (
            isinstance(call, dict)
            and call.get("name") == tool
            and str(call.get("query", "")).strip()
        ):
            yield str(call["query"]).strip()


def _title(line: str, titles: set[str]) -> str | None:
    """Read a title that may hold brackets itself."""
    return max((title for title in titles if line.startswith(f"{title})")), key=len, default=None)


def judge(
    collection: Collection,
    searches: dict[str, list[str]],
    memory: QueryVectorCache,
    retriever: Retriever,
) -> tuple[float, float, float]:
    """Return recall@1, recall@3 and the share of shown titles."""
    ranked = (
        build_in_memory(collection, memory, retriever).ranker(retriever).rank(list(searches), 3)
    )
    found = [[collection[row].title for row, _ in hits] for hits in ranked]
    pairs = list(zip(found, searches.values(), strict=True))
    num_shown = sum(len(shown) for _, shown in pairs)
    return (
        sum(shown[0] in ours[:1] for ours, shown in pairs) / len(pairs),
        sum(shown[0] in ours for ours, shown in pairs) / len(pairs),
        sum(title in ours for ours, shown in pairs for title in shown) / num_shown,
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=SHARED,
        help="folder with local_kb/ and rollouts/ (default: %(default)s)",
    )
    options = parser.parse_args()
    memory = QueryVectorCache(load_encoder(DEFAULT_ENCODER, num_threads=1))
    sys.stdout.write(
        "| collection | retriever | queries | recall@1 | recall@3 | shown"
        " |\n|---|---|---|---|---|---|\n"
    )
    for kind, name in (
        (CollectionKind.TEXT, "text_corpus.jsonl"),
        (CollectionKind.IMAGE, "image_corpus.jsonl"),
    ):
        collection = load_corpus(kind, options.shared / "local_kb" / name)
        searches = recorded_searches(
            options.shared / "rollouts", kind, {entry.title for entry in collection}
        )
        for retriever in (Retriever.BM25, Retriever.DENSE, Retriever.HYBRID):
            scores = " | ".join(
                f"{score:.3f}" for score in judge(collection, searches, memory, retriever)
            )
            sys.stdout.write(f"| {kind} | {retriever} | {len(searches)} | {scores} |\n")


if __name__ == "__main__":
    main()
