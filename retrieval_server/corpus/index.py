"""Index folders: what makes a corpus searchable, made once and opened in a moment.

A folder holds `offsets.npy`, `vectors.npy`, `index.faiss` (approximate types), `bm25/` and, written
last, `manifest.json`. The manifest names the corpus by its hash and the encoder by what it does to
a probe, so that an index of other contents or of another model is refused. A build that was killed
goes on where it was: vectors are kept in parts until all are there.

Arrays: N entries, D dimensions.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from retrieval_server.corpus.bm25 import Bm25Ranker, build_bm25, open_bm25, save_bm25
from retrieval_server.corpus.collection import Collection, sha256_of
from retrieval_server.corpus.ranking import DenseRanker, HybridRanker, Ranker, Retriever
from retrieval_server.corpus.vectors import (
    FlatIndex,
    HnswIndex,
    IndexType,
    IvfPqIndex,
    RowsOnDisk,
    VectorIndex,
    build_faiss,
    flat_from_faiss,
    open_faiss,
)
from retrieval_server.encoder import Encoder, QueryVectorCache, Role
from retrieval_server.progress import StartProgress, no_progress
from retrieval_server.schemas import CollectionKind
from seg_common.errors import UsageError
from seg_common.files import atomic_path, write_atomic

FORMAT_VERSION = 1
_PROBE = "which model made these vectors?"
_SAME_MODEL_COSINE = 0.999
_PART_ENTRIES = 2048
_FOREIGN_PROBES, _FOREIGN_RANK = 3, 10
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index folder was made of.

    Attributes:
        probe_D: the vector that the encoder gave to a fixed text; empty without vectors.
    """

    kind: str
    corpus: str
    corpus_sha256: str
    num_entries: int
    retriever: str
    type: str
    encoder: str
    probe_D: tuple[float, ...]
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class LocalIndex:
    """A corpus and the ways of searching it that are there."""

    collection: Collection
    dense: DenseRanker | None = None
    words: Bm25Ranker | None = None

    def ranker(self, retriever: Retriever) -> Ranker:
        """Choose how to search.

        Raises:
            UsageError: the index was not built for it.
        """
        if retriever is Retriever.HYBRID and self.dense and self.words:
            return HybridRanker(self.dense, self.words)
        one = {Retriever.DENSE: self.dense, Retriever.BM25: self.words}.get(retriever)
        if one is None:
            raise UsageError(
                f"{self.collection.path.name}: its index cannot do {retriever} retrieval; build it"
                f" with --retriever {retriever}"
            )
        return one


def build_in_memory(
    collection: Collection,
    vectors: QueryVectorCache | None,
    retriever: Retriever,
    progress: StartProgress = no_progress,
) -> LocalIndex:
    """Index a corpus for this process alone, exactly."""
    name, texts = collection.path.name, (entry.contents for entry in collection)
    dense = words = None
    if retriever.uses_vectors:
        assert vectors is not None
        vectors_ND = vectors.encoder.encode(
            [*texts], Role.PASSAGE, progress(f"embedding {name}", len(collection))
        )
        dense, texts = (
            DenseRanker(vectors, FlatIndex(vectors_ND)),
            (entry.contents for entry in collection),
        )
    if retriever.uses_words:
        words = build_bm25(texts, progress(f"indexing words of {name}", len(collection)))
    return LocalIndex(collection, dense, words)


def build_folder(
    folder: Path,
    collection: Collection,
    encoder: Encoder | None,
    retriever: Retriever,
    kind: IndexType,
    progress: StartProgress = no_progress,
) -> Manifest:
    """Build an index folder, or go on with one whose build was interrupted; one that is up to date
    is left as it is.

    Raises:
        UsageError: the folder cannot be written, or the type does not fit the corpus.
    """
    manifest = _manifest_of(collection, encoder, retriever, kind)
    with _only_builder(folder):
        before = _read_manifest(folder)
        if (
            before
            and replace(before, probe_D=manifest.probe_D) == manifest
            and _same_model(before.probe_D, manifest.probe_D)
        ):
            return before
        (folder / "manifest.json").unlink(missing_ok=True)
        if encoder is not None:
            _build_vectors(folder, collection, encoder, manifest, progress)
            if kind is not IndexType.FLAT:
                vectors_ND = np.load(folder / "vectors.npy", mmap_mode="r")
                with atomic_path(folder / "index.faiss") as temporary:
                    build_faiss(
                        kind, vectors_ND, temporary, progress(f"building {kind}", len(collection))
                    )
        if retriever.uses_words:
            texts = (entry.contents for entry in collection)
            save_bm25(
                build_bm25(
                    texts, progress(f"indexing words of {collection.path.name}", len(collection))
                ),
                folder / "bm25",
            )
        with atomic_path(folder / "offsets.npy") as temporary:
            np.save(temporary, collection.offsets_N)
        write_atomic(folder / "manifest.json", json.dumps(asdict(manifest), indent=1) + "\n")
    return manifest


def open_folder(
    folder: Path,
    kind: CollectionKind,
    corpus: Path,
    vectors: QueryVectorCache | None,
    retriever: Retriever,
) -> LocalIndex:
    """Open an index folder for the corpus that it was made of, without reading that corpus line by
    line.

    What the retriever does not use is left aside; where it uses vectors, `vectors` has the encoder.

    Raises:
        UsageError: the folder is not whole, or is of another corpus, kind, encoder or retriever.
    """
    option = "--text" if kind is CollectionKind.TEXT else "--images"
    again = (
        f"build it again: seg-research index build {option} {corpus} --out {folder} --retriever"
        f" {retriever}"
    )
    manifest = _read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder}: not a finished index; {again}")
    sha256 = sha256_of(corpus)
    if (manifest.kind, manifest.corpus_sha256) != (kind, sha256):
        raise UsageError(
            f"{folder}: stale: made of {manifest.kind} corpus {manifest.corpus}"
            f" ({manifest.corpus_sha256[:12]}…), but {corpus} is {sha256[:12]}…; {again}"
        )
    collection = Collection(kind, corpus, np.load(folder / "offsets.npy", mmap_mode="r"), sha256)
    built = Retriever(manifest.retriever)
    if built not in {retriever, Retriever.HYBRID}:
        raise UsageError(f"{folder}: was built for {built} retrieval alone; {again}")
    dense = None
    if retriever.uses_vectors:
        assert vectors is not None
        if not _same_model(manifest.probe_D, _probe(vectors.encoder)):
            raise UsageError(
                f"{folder}: stale: made with encoder {manifest.encoder}, which is not what"
                f" {vectors.encoder.name} is now; {again}"
            )
        dense = DenseRanker(vectors, _open_vectors(folder, IndexType(manifest.type)))
    return LocalIndex(
        collection, dense, open_bm25(folder / "bm25") if retriever.uses_words else None
    )


def open_faiss_index(path: Path, collection: Collection, vectors: QueryVectorCache) -> LocalIndex:
    """Open a flat FAISS index that another program made of the same corpus; as nothing says with
    which encoder, some entries are looked up.

    Raises:
        UsageError: the number of entries, the dimensions or the encoder do not fit.
    """
    index = flat_from_faiss(path)
    num_entries, num_dimensions = index.vectors_ND.shape
    if num_entries != len(collection):
        raise UsageError(
            f"{path}: holds {num_entries} vectors, but {collection.path} has {len(collection)}"
            " entries; they must be of one build"
        )
    last = num_entries - 1
    rows = sorted({round(last * probe / (_FOREIGN_PROBES - 1)) for probe in range(_FOREIGN_PROBES)})
    probes_QD = vectors.encoder.encode([collection[row].contents for row in rows], Role.PASSAGE)
    if probes_QD.shape[1] != num_dimensions:
        raise UsageError(
            f"{path}: holds vectors of {num_dimensions} dimensions, but encoder"
            f" {vectors.encoder.name} makes {probes_QD.shape[1]}; name the encoder of the index"
            " with --encoder"
        )
    found = index.search(probes_QD, _FOREIGN_RANK)
    if not all(row in [hit.row for hit in hits] for row, hits in zip(rows, found, strict=True)):
        raise UsageError(
            f"{path}: entries of {collection.path.name} are not found by their own contents; the"
            f" index is of another encoder than {vectors.encoder.name} (name it with --encoder) or"
            " of another corpus"
        )
    return LocalIndex(collection, DenseRanker(vectors, index))


def _manifest_of(
    collection: Collection, encoder: Encoder | None, retriever: Retriever, kind: IndexType
) -> Manifest:
    probe_D = () if encoder is None else _probe(encoder)
    name = "" if encoder is None else encoder.name
    return Manifest(
        collection.kind,
        collection.path.name,
        collection.sha256,
        len(collection),
        retriever,
        kind,
        name,
        probe_D,
    )


def _probe(encoder: Encoder) -> tuple[float, ...]:
    query_D, passage_D = encoder.encode([_PROBE])[0], encoder.encode([_PROBE], Role.PASSAGE)[0]
    return tuple(round(value, 5) for value in ((query_D + passage_D) / 2).tolist())


def _same_model(one_D: tuple[float, ...], other_D: tuple[float, ...]) -> bool:
    """Compare probes; other processors round differently, other weights differ much more."""
    if len(one_D) != len(other_D):
        return False
    return one_D == other_D or np.dot(one_D, other_D) > _SAME_MODEL_COSINE * np.linalg.norm(
        one_D
    ) * np.linalg.norm(other_D)


def _read_manifest(folder: Path) -> Manifest | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        stated: dict[str, Any] = json.loads(path.read_text())
        if stated.get("format_version") != FORMAT_VERSION:
            return None
        stated["probe_D"] = tuple(stated["probe_D"])
        return Manifest(**stated)
    except (ValueError, TypeError, KeyError, AttributeError):
        _logger.warning("%s: cannot be read; the index counts as unfinished", path)
        return None


def _open_vectors(folder: Path, kind: IndexType) -> VectorIndex:
    try:
        vectors_ND = np.load(folder / "vectors.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder / 'vectors.npy'}: cannot be read ({error}); delete the folder and build it"
            " again"
        ) from None
    if kind is IndexType.FLAT:
        return FlatIndex(vectors_ND)
    index = open_faiss(folder / "index.faiss")
    return (
        HnswIndex(index)
        if kind is IndexType.HNSW
        else IvfPqIndex(index, RowsOnDisk(folder / "vectors.npy"))
    )


def _build_vectors(
    folder: Path,
    collection: Collection,
    encoder: Encoder,
    manifest: Manifest,
    progress: StartProgress,
) -> None:
    """Embed a corpus in parts, each of which is whole or absent, and join them."""
    target, parts, stated = folder / "vectors.npy", folder / "parts", folder / "vectors.json"
    identity = json.dumps(
        {
            "corpus_sha256": manifest.corpus_sha256,
            "encoder": manifest.encoder,
            "probe_D": manifest.probe_D,
        }
    )
    if not stated.is_file() or stated.read_text() != identity:
        shutil.rmtree(parts, ignore_errors=True)
        target.unlink(missing_ok=True)
        write_atomic(stated, identity)
    advance = progress(f"embedding {collection.path.name}", len(collection))
    if target.is_file():
        advance(len(collection))
        return
    starts = range(0, len(collection), _PART_ENTRIES)
    for start in starts:
        part, end = parts / f"{start:012d}.npy", min(start + _PART_ENTRIES, len(collection))
        if part.is_file():
            advance(end - start)
            continue
        vectors_ND = encoder.encode(
            [collection[row].contents for row in range(start, end)], Role.PASSAGE, advance
        )
        with atomic_path(part) as temporary:
            np.save(temporary, vectors_ND.astype(np.float32, copy=False))
    with atomic_path(target) as temporary, temporary.open("wb") as joined:
        shape = (len(collection), len(manifest.probe_D))
        np.lib.format.write_array_header_1_0(
            joined, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        for start in starts:
            joined.write(np.load(parts / f"{start:012d}.npy").tobytes())
    shutil.rmtree(parts)


@contextmanager
def _only_builder(folder: Path) -> Generator[None]:
    """Let one process at a time build a folder; others wait, and then find it built."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot write ({error.strerror}); choose another folder"
        ) from None
    with lock:
        yield
