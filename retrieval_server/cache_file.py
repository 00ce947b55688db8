"""Answers of sources, kept in one SQLite file: a question is paid for once, and a run can be
repeated without the web.

A row is committed before its answer is sent, in SQLite's write-ahead log: a killed server loses
nothing that a client has seen. Images are kept once, under the hash of their bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from retrieval_server.cache import CachedSearch, Key, MemoryCache
from retrieval_server.schemas import CollectionKind
from retrieval_server.sources import SearchResult
from seg_common.errors import UsageError
from seg_common.files import atomic_path

APPLICATION_ID = 0x53524348
"""Marks our files for SQLite, so that another program's database is not written into."""
FORMAT = 1
_HEADER = b"SQLite format 3\0"
_BUSY_S = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, provider TEXT NOT NULL, kind TEXT NOT NULL, query TEXT NOT NULL,
  top_k INTEGER NOT NULL, options TEXT NOT NULL,
  made_at REAL NOT NULL, hits TEXT NOT NULL, note TEXT
);
CREATE TABLE IF NOT EXISTS pictures (digest TEXT PRIMARY KEY, jpeg BLOB NOT NULL);
"""
_logger = logging.getLogger(__name__)


class CacheMode(StrEnum):
    """What a server does with its cache file."""

    OFF = "off"
    RECORD = "record"
    """Answer from the file what is in it and still fresh; ask for the rest and keep it."""
    REPLAY = "replay"
    """Answer from the file, whatever its age, and ask nobody."""


class SqliteCache:
    """Answers in one SQLite file, with the recently used ones in memory. All disk work happens on
    one thread of its own.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: CacheMode,
        ttl_s: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open or make a cache file.

        Raises:
            UsageError: the file cannot be made, is not one of ours, or (in replay mode) does not
                exist.
        """
        if mode is CacheMode.REPLAY and not path.is_file():
            raise UsageError(
                f"{path}: no such cache file to replay; record one first with --cache-mode record,"
                " or import one"
            )
        self.path = path
        self._ttl_s = math.inf if mode is CacheMode.REPLAY else ttl_s
        self._clock = clock
        self._memory = MemoryCache(ttl_s=self._ttl_s, clock=clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._database = self._thread.submit(
            open_database, path, read_only=mode is CacheMode.REPLAY
        ).result()

    def look(self, key: Key) -> CachedSearch | None:
        """Return what is fresh and in memory."""
        return self._memory.look(key)

    async def get(self, key: Key) -> CachedSearch | None:
        """Return what is known and fresh."""
        known = self.look(key)
        return known if known is not None else await self._off_loop(lambda: self._read(key))

    async def put(self, key: Key, answer: CachedSearch) -> None:
        """Commit an answer."""
        made_at = self._clock()
        self._memory.keep(key, answer, made_at)
        await self._off_loop(lambda: self._write(key, answer, made_at))

    def close(self) -> None:
        """Fold the log into the file."""
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()

    async def _off_loop(self, work: Callable[[], CachedSearch | None]) -> CachedSearch | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _read(self, key: Key) -> CachedSearch | None:
        try:
            row = self._database.execute(
                "SELECT made_at, hits, note FROM answers WHERE key = ?", (key.digest,)
            ).fetchone()
            if row is None or self._clock() - row[0] > self._ttl_s:
                return None
            answer = _answer_of(row[1], row[2], self._image)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            _logger.error("%s: cannot read the answer to %.80r (%s)", self.path, key.query, error)
            return None
        self._memory.keep(key, answer, row[0])
        return answer

    def _image(self, digest: str) -> bytes:
        return self._database.execute(
            "SELECT jpeg FROM pictures WHERE digest = ?", (digest,)
        ).fetchone()[0]

    def _write(self, key: Key, answer: CachedSearch, made_at: float) -> None:
        try:
            with self._database:
                _insert(self._database, key, answer, made_at)
        except sqlite3.Error as error:
            _logger.error("%s: cannot keep the answer to %.80r (%s)", self.path, key.query, error)


def open_database(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a cache file, made where there is none.

    Raises:
        UsageError: it cannot be opened or written, or is something else.
    """
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        _check_header(path)
        # Read-only by SQLite's own switch and not by the URI's: a log left by a killed writer must
        # still be read.
        database = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
        _check_ours(database, path)
        if read_only:
            database.execute("PRAGMA query_only = 1")
        else:
            database.execute("PRAGMA journal_mode = WAL")
            # Enough against a killed process; only a power cut can take the last commits, and never
            # damages the file.
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
                f" {_TABLES}"
            )
    except (sqlite3.Error, OSError) as error:
        raise UsageError(
            f"{path}: cannot be used as a cache ({error}); choose another --cache-file"
        ) from None
    return database


def _check_header(path: Path) -> None:
    """Refuse what is no database: SQLite would begin a new one in place of a very short file."""
    if path.exists():
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
        if header not in (b"", _HEADER):
            raise UsageError(f"{path}: not a search cache; choose another --cache-file")


def _check_ours(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA trusted_schema = 0")
    (application,), (version,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    is_new = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_new and (application, version) != (APPLICATION_ID, FORMAT):
        raise UsageError(
            f"{path}: a database of another program or version; expected a search cache of format"
            f" {FORMAT}"
        )


def _insert(database: sqlite3.Connection, key: Key, answer: CachedSearch, made_at: float) -> None:
    records: list[dict[str, object]] = []
    for hit in answer.hits:
        digest = None if hit.image is None else hashlib.sha256(hit.image).hexdigest()
        if digest is not None:
            database.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?)", (digest, hit.image))
        records.append({**asdict(hit), "image": digest})
    row = (
        key.digest,
        key.provider,
        key.kind,
        key.query,
        key.top_k,
        key.options,
        made_at,
        json.dumps(records),
        answer.note,
    )
    database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _answer_of(hits: str, note: str | None, read_image: Callable[[str], bytes]) -> CachedSearch:
    found: list[SearchResult] = []
    for record in json.loads(hits):
        image = None if record["image"] is None else read_image(record["image"])
        found.append(
            SearchResult(
                str(record["id"]),
                str(record["title"]),
                str(record["text"]),
                str(record["source"]),
                float(record["score"]),
                image,
            )
        )
    return CachedSearch(tuple(found), None if note is None else str(note))


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache file holds, by provider and kind."""

    num_answers: dict[str, int]
    num_images: int
    num_bytes: int
    oldest: float | None
    newest: float | None


def stats_of(path: Path) -> CacheStats:
    """Count what a cache file holds.

    Raises:
        UsageError: it is missing or not one of ours.
    """
    with _existing(path) as database:
        grouped = database.execute(
            "SELECT provider, kind, count(*) FROM answers GROUP BY 1, 2 ORDER BY 1, 2"
        )
        counts = {f"{provider} {kind}": count for provider, kind, count in grouped}
        oldest, newest = database.execute(
            "SELECT min(made_at), max(made_at) FROM answers"
        ).fetchone()
        (images,) = database.execute("SELECT count(*) FROM pictures").fetchone()
    return CacheStats(counts, images, path.stat().st_size, oldest, newest)


def export_cache(path: Path, target: Path) -> CacheStats:
    """Write a copy that is one compact file without a log, also while a server writes the original;
    it can be replayed as it is.

    Raises:
        UsageError: the cache is missing or not one of ours, or the copy cannot be written.
    """
    if target.exists() and target.resolve() == path.resolve():
        raise UsageError(f"{target}: this is the cache itself; name another file to export to")
    with _existing(path) as database, atomic_path(target) as temporary:
        temporary.unlink()  # VACUUM INTO makes its file itself.
        try:
            database.execute("PRAGMA query_only = 0")  # It would forbid the copy too.
            database.execute("VACUUM INTO ?", (os.fspath(temporary),))
        except sqlite3.Error as error:
            raise UsageError(f"{target}: cannot export ({error})") from None
    return stats_of(target)


def import_cache(
    path: Path, source: Path, *, progress: Callable[[int], object] | None = None
) -> int:
    """Take the answers of another cache file; of two to one question the newer stays. Return the
    number taken.

    Raises:
        UsageError: a file is missing, damaged or not one of ours.
    """
    num_taken = 0
    with _existing(source) as other, closing(open_database(path)) as database:
        columns = "provider, kind, query, top_k, options, made_at, hits, note"
        try:
            with database:  # All or nothing: an import that was killed is begun again.
                for provider, kind, query, top_k, options, made_at, hits, note in other.execute(
                    f"SELECT {columns} FROM answers"
                ):
                    key = Key(
                        str(provider), CollectionKind(kind), str(query), int(top_k), str(options)
                    )
                    known = database.execute(
                        "SELECT made_at FROM answers WHERE key = ?", (key.digest,)
                    ).fetchone()
                    if known is None or known[0] < made_at:
                        _insert(
                            database,
                            key,
                            _answer_of(hits, note, lambda digest: _stored_image(other, digest)),
                            float(made_at),
                        )
                        num_taken += 1
                    if progress:
                        progress(1)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{source}: cannot be imported ({error}); export it again") from None
    return num_taken


def _stored_image(database: sqlite3.Connection, digest: str) -> bytes:
    row = database.execute("SELECT jpeg FROM pictures WHERE digest = ?", (digest,)).fetchone()
    if row is None or hashlib.sha256(row[0]).hexdigest() != digest:
        raise ValueError(f"image {digest[:12]} is missing or damaged")
    return row[0]


@contextmanager
def _existing(path: Path) -> Generator[sqlite3.Connection]:
    if not path.is_file():
        raise UsageError(f"{path}: no such cache file")
    with closing(open_database(path, read_only=True)) as database:
        yield database
